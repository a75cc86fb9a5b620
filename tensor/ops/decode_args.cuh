// What the decoding kernel is told, and where everything lies in shared memory and in the memory
// through which teams talk.
#pragma once

#include "tensor/ops/decode.h"
#include "tensor/ops/decode_team.cuh"

namespace infini {

constexpr int kMostGroup = 8;  // query heads that share a key/value head
constexpr int kMostTeams = 16;
constexpr int kUnit = 16;  // rows that a warp multiplies at a time

template <class N>
struct LayerPointers {
  const float *attention_norm, *feed_forward_norm, *gate, *matrix, *normalizer;
  const N *qkv, *output, *up, *down;
  N *window_qkv, *window_rotated;
};

// What the kernel knows of a model when it is compiled: the type of its numbers, how many query
// heads share a key/value head at most, the width of the stream and that of a head, 0 for any.
template <class Number, int most_of_group, int width = 0, int head_width = 0>
struct Known {
  using N = Number;
  static constexpr int kGroup = most_of_group, kWidth = width, kHeadWidth = head_width;
};

// Offsets in bytes.
struct SharedLayout {
  int layers = 0, products = 0, inverse = 0, angles = 0, stream = 0, middle = 0, sum = 0, heads = 0,
      records = 0, mixed = 0;
  int inner = 0, partials = 0, outputs = 0, letters = 0, scores = 0, state = 0, local = 0;
  int recalled = 0, nothing = 0, ring = 0;
  int score_stride = 0;  // numbers of a query head
  int ring_bytes = 0;
  int bytes = 0;
};

template <class M>
struct DecodeArgs {
  using N = typename M::N;
  const LayerPointers<N>* layers;
  int layer_count, any_width, heads, kv_heads, any_head_width, inner, vocabulary, teams;
  DecodeActivation activation;
  float scale, norm_eps, recall_eps;
  bool recalls, bypass_empty;
  const N *embedding, *head;  // no head: no logits
  const float *final_norm, *angles;
  int token, position;
  const std::uint64_t* from;
  N *hidden, *logits;
  std::uint64_t* choice;
  std::uint32_t *exchange, *next_exchange;  // of this step; of the next one, to be emptied
  int exchange_words;
  int* status;
  SharedLayout shared;

  __host__ __device__ int width() const { return M::kWidth ? M::kWidth : any_width; }
  __host__ __device__ int head_width() const {
    return M::kHeadWidth ? M::kHeadWidth : any_head_width;
  }
  __host__ __device__ int group() const { return M::kGroup == 1 ? 1 : heads / kv_heads; }
  __host__ __device__ int units() const { return width() / kUnit; }
};

// Whole numbers [begin, end): the share of `part` among `parts` in `count`.
struct Share {
  int begin, end;
  __device__ int size() const { return end - begin; }
};
__device__ __forceinline__ Share share_of(int count, int part, int parts) {
  const unsigned n = static_cast<unsigned>(count), all = static_cast<unsigned>(parts);
  const unsigned begin = n * part / all, end = n * (part + 1) / all;
  return {static_cast<int>(begin), static_cast<int>(end)};
}

// How teams share out the inner width of the feed-forward network: the first ones, which bring the
// weights and the window of a head near as well, have one part each, the others two. Where there
// are not units for that, all have one, and a unit at least.
struct InnerParts {
  int units, attending, each, all;

  __host__ __device__ InnerParts(int inner_units, int attending_teams, int teams)
      : units(inner_units),
        attending(attending_teams < teams ? attending_teams : teams),
        each(inner_units < 2 * teams ? 1 : 2),
        all(before(teams)) {}
  // Parts of the first `teams` teams, and where their units end.
  __host__ __device__ int before(int teams) const {
    return each * teams - (each - 1) * (teams < attending ? teams : attending);
  }
  __host__ __device__ int end(int teams) const { return units * before(teams) / all; }
  __host__ __device__ int most() const { return (units * each + all - 1) / all; }
};

// a / b for whole numbers of a few thousand.
__device__ __forceinline__ int quotient(int a, int b) {
  return static_cast<int>(__fdividef(static_cast<float>(a) + 0.5f, static_cast<float>(b)));
}

// What a block has of everything. Teams share out the key/value heads, every `teams`-th one, and
// the inner width of the feed-forward networks; blocks of a team share out rows.
struct Place {
  int team, rank;
  int attending;  // teams that have heads
  int feeding;    // teams that have columns of the inner width
  Share units;    // rows of the residual stream
  Share inner;    // columns of the team
  Share own;      // of these, the block's: those whose rows it multiplies

  template <class M>
  __device__ explicit Place(const DecodeArgs<M>& args)
      : team(static_cast<int>(blockIdx.x) / kTeam),
        rank(rank_in_team()),
        attending(min(args.teams, args.kv_heads)),
        feeding(min(args.teams, args.inner / kUnit)),
        units(share_of(args.units(), rank, kTeam)),
        inner{} {
    const InnerParts parts(args.inner / kUnit, attending, feeding);
    if (team < feeding) inner = {parts.end(team) * kUnit, parts.end(team + 1) * kUnit};
    own = share_of(inner.size() / 8, rank, kTeam);
    own = {inner.begin + own.begin * 8, inner.begin + own.end * 8};
  }
};

// What follows what in a layer: attention and its output projection for one head after another, a
// meeting of all teams, the feed-forward network, a meeting. The vocabulary follows the last layer.
enum class Part { kHeads, kOutput, kMiddle, kInner, kDown, kSum, kVocabulary };
constexpr int kParts = 7;

// Whether a product has few long rows, whose columns the warps of a block share; the others have
// many short ones.
__host__ __device__ constexpr bool shares_columns(Part part) {
  return part != Part::kOutput && part != Part::kDown;
}

// Calls use(layer, part, kv_head) in that order. There is one call, so that the code of a product
// is there once and stays in the instruction cache.
template <class M, class Use>
__device__ __forceinline__ void each_part(const DecodeArgs<M>& args, Use use) {
  const int team = static_cast<int>(blockIdx.x) / kTeam;
  const Part first = team < args.kv_heads ? Part::kHeads : Part::kMiddle;
  Part part = first;
  int layer = 0, kv_head = team;
#pragma unroll 1
  while (true) {
    use(layer, part, kv_head);
    if (part == Part::kVocabulary) return;
    if (part == Part::kOutput && kv_head + args.teams < args.kv_heads) {
      part = Part::kHeads;
      kv_head += args.teams;
    } else if (part == Part::kSum) {
      ++layer;
      kv_head = team;
      part = layer < args.layer_count ? first : Part::kVocabulary;
    } else {
      part = static_cast<Part>(static_cast<int>(part) + 1);
    }
  }
}

// The residual stream times the weights of a norm, as a product wants it: units of 16 numbers, with
// each the sum of the squares of its part of the stream. The root is taken out of the product.
template <class N>
constexpr int kNormUnitBytes = kUnit* static_cast<int>(sizeof(N)) + 16;

// Rows of heads, keys and values in shared memory are 16 bytes apart, so that 8 of them at the same
// column lie in different banks.
constexpr int kRowPad = 16;
template <class N>
__host__ __device__ int head_stride(int head_width) {
  return head_width * static_cast<int>(sizeof(N)) + kRowPad;
}

// A warp's numbers before they are sent.
constexpr int kLetterBytes = 256;
// What a block sends that has no unit to send, so that its team waits for it as well; then what all
// such blocks of a team send that shares out so many units.
constexpr int kNothingBytes = 16;
__device__ __forceinline__ int nothing_bytes(int units) {
  return max(0, kTeam - units) * kNothingBytes;
}
// The sums of all warps for 8 units, of this batch and of the one before.
constexpr int kBatch = 8, kPartials = kBatch * kConsumerWarps * kUnit;

// Shared memory as the consumers see it.
template <class M>
struct Product;
template <class M>
struct Desk {
  using N = typename M::N;
  const DecodeArgs<M>& args;
  Place place;
  Patience patience;
  LayerPointers<N>* layers;
  Product<M>* products;     // [kParts], of some layer and the first head
  float* inverse;           // [2] of the root of the mean square of the stream, in turn
  float* angles;            // [K] of this position
  float* stream;            // the block's units of the residual stream
  std::byte *middle, *sum;  // the stream in a layer and between layers, times norms
  std::byte* mixed;         // [g, K] of N, what attention found
  std::byte* inner;         // the team's columns of N
  float* partials;          // [2, kBatch, warps, kUnit]
  float* outputs;           // the block's units of the output projection, of a team with many heads
  std::byte* letter;        // of this warp
  std::byte* nothing;       // where blocks send that have nothing to say
  int tid, warp, lane;

  __device__ Desk(const DecodeArgs<M>& plan, std::byte* shared, const Patience& patience_)
      : args(plan),
        place(plan),
        patience(patience_),
        layers(reinterpret_cast<LayerPointers<N>*>(shared + plan.shared.layers)),
        products(reinterpret_cast<Product<M>*>(shared + plan.shared.products)),
        inverse(reinterpret_cast<float*>(shared + plan.shared.inverse)),
        angles(reinterpret_cast<float*>(shared + plan.shared.angles)),
        stream(reinterpret_cast<float*>(shared + plan.shared.stream)),
        middle(shared + plan.shared.middle),
        sum(shared + plan.shared.sum),
        mixed(shared + plan.shared.mixed),
        inner(shared + plan.shared.inner),
        partials(reinterpret_cast<float*>(shared + plan.shared.partials)),
        outputs(reinterpret_cast<float*>(shared + plan.shared.outputs)),
        letter(shared + plan.shared.letters + threadIdx.x / 32 * kLetterBytes),
        nothing(shared + plan.shared.nothing),
        tid(static_cast<int>(threadIdx.x)),
        warp(tid / 32),
        lane(tid % 32) {}
};

}  // namespace infini
