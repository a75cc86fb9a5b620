// What the decoding kernel is told, and where everything lies in shared memory and in the memory
// through which blocks talk.
#pragma once

#include "tensor/ops/decode.h"
#include "tensor/ops/decode_ring.cuh"

namespace infini {

constexpr int kMostGroup = 8;    // query heads that share a key/value head
constexpr int kMostSplits = 32;  // a lane each when they are merged

// Rows of partial sums that a block adds up at a time, one lane each.
constexpr int kBatch = 4;           // octets
constexpr int kPartialStride = 72;  // of an octet: 8 warps by 8 rows, and a pad
constexpr int kPartials = 2 * kBatch * 2 * kPartialStride;

template <class N>
struct LayerPointers {
  const float *attention_norm, *feed_forward_norm, *gate, *matrix, *normalizer;
  const N *qkv, *output, *up, *down;
  N *window_qkv, *window_rotated;
};

// Offsets in the words of one layer; qkv comes first. Vectors of N lie there two to a word for
// bf16.
struct ExchangeLayout {
  int records = 0, mixed = 0, middle = 0, inner = 0, sum = 0, layer_words = 0;
  int record_words = 0;  // see decode_attention.cuh
};

// Offsets in bytes.
struct SharedLayout {
  int layers = 0, zero = 0, sums = 0, partials = 0, angles = 0, stream = 0, x = 0;
  int raw = 0, turned = 0, queries = 0, mapped = 0, normalizer = 0, scores = 0, state = 0;
  int local = 0, recalled = 0, stages = 0;
  int score_stride = 0;  // numbers of a query head
  int slice = 0;         // at most so many rows of the memory in a block
  int stage_count = 0;
  int bytes = 0;
};

template <class N>
struct DecodeArgs {
  const LayerPointers<N>* layers;
  int layer_count, width, heads, kv_heads, head_width, inner, vocabulary, splits;
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
  ExchangeLayout words;
  SharedLayout shared;

  __host__ __device__ int group() const { return heads / kv_heads; }
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

// The products of a layer in their order, and the one after the last layer.
enum class Part { kHeads, kOutput, kInner, kDown, kVocabulary };
constexpr int kPartsOfLayer = 4;

// A matrix of `halves` times `rows` rows; row r of the result comes from row r of each half.
template <class N>
struct Product {
  const N* matrix;
  int rows, columns, halves;
};
template <class N>
__device__ __forceinline__ Product<N> product_of(const DecodeArgs<N>& args,
                                                 const LayerPointers<N>& layer, Part part) {
  const int queries = args.heads * args.head_width;
  switch (part) {
    case Part::kHeads:
      return {layer.qkv, queries + 2 * args.kv_heads * args.head_width, args.width, 1};
    case Part::kOutput:
      return {layer.output, args.width, queries, 1};
    case Part::kInner:
      return {layer.up, args.inner, args.width,
              args.activation == DecodeActivation::kSwiglu ? 2 : 1};
    case Part::kDown:
      return {layer.down, args.width, args.inner, 1};
    default:
      return {args.head, args.vocabulary, args.width, 1};
  }
}

// Calls use(layer, part) for all products of a token in their order: one loop, so that the code of
// a product is there once and stays in the instruction cache. The one after the layers has their
// number.
template <class N, class Use>
__device__ __forceinline__ void each_product(const DecodeArgs<N>& args, Use use) {
  const int in_layers = args.layer_count * kPartsOfLayer;
#pragma unroll 1
  for (int i = 0; i <= in_layers; ++i)
    use(i / kPartsOfLayer,
        i < in_layers ? static_cast<Part>(i % kPartsOfLayer) : Part::kVocabulary);
}

template <class N>
constexpr int kPiece = kPieceBytes / static_cast<int>(sizeof(N));  // columns

// Shared memory as the consumers see it.
template <class N>
struct Desk {
  const DecodeArgs<N>& args;
  Patience patience;
  LayerPointers<N>* layers;
  uint4* zero;      // 16 bytes of zeros
  float* sums;      // [warps]
  float* partials;  // [2, kBatch, 2, kPartialStride]
  float* angles;    // [K] of this position
  float* stream;    // [D] the residual stream
  std::byte* x;     // the vector that matrices are multiplied with, see store_operand
  int tid, warp, lane;

  __device__ Desk(const DecodeArgs<N>& plan, std::byte* shared, const Patience& patience_)
      : args(plan),
        patience(patience_),
        layers(reinterpret_cast<LayerPointers<N>*>(shared + plan.shared.layers)),
        zero(reinterpret_cast<uint4*>(shared + plan.shared.zero)),
        sums(reinterpret_cast<float*>(shared + plan.shared.sums)),
        partials(reinterpret_cast<float*>(shared + plan.shared.partials)),
        angles(reinterpret_cast<float*>(shared + plan.shared.angles)),
        stream(reinterpret_cast<float*>(shared + plan.shared.stream)),
        x(shared + plan.shared.x),
        tid(static_cast<int>(threadIdx.x)),
        warp(tid / 32),
        lane(tid % 32) {}

  // Calls use(i, words) for 16-byte vectors i = tid, tid + kConsumers... once they have come.
  template <class Use>
  __device__ __forceinline__ void each_vector(const void* vectors, bool waits, int count,
                                              Use use) const {
    constexpr int kAtOnce = 2;
    const auto* const from = static_cast<const uint4*>(vectors);
#pragma unroll 1
    for (int first = tid; first < count; first += kAtOnce * kConsumers) {
      uint4 words[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j)
        if (const int i = first + j * kConsumers; i < count) words[j] = load_relaxed(from + i);
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j)
        if (const int i = first + j * kConsumers; i < count)
          use(i, waits ? await(from + i, words[j], patience) : words[j]);
    }
  }
};

}  // namespace infini
