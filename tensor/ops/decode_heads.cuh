// How the attention of one token is shared out: a team has the query heads of a key/value head, and
// a block of it some keys of the window and as many rows of the memory.
#pragma once

#include "tensor/ops/decode_stream.cuh"

namespace infini {

struct HeadShare {
  Share keys, rows;

  template <class M>
  __device__ explicit HeadShare(const DecodeArgs<M>& args)
      : keys(share_of(args.position, rank_in_team(), kTeam)),
        rows(share_of(args.head_width(), rank_in_team(), kTeam)) {}
};

constexpr int kApart = 8 * kConsumerWarps;  // keys from an octet of a warp to the next one
template <class N>
__device__ __forceinline__ int keys_of_tile(int head_width) {
  return kTileBytes / (kApart * head_stride<N>(head_width)) * kApart;
}

// A copying warp's side: the block's keys, values and rows of the memory, with these of the
// normalizer.
template <class M>
__device__ __forceinline__ void stream_heads(const DecodeArgs<M>& args,
                                             const LayerPointers<typename M::N>& layer, int kv_head,
                                             Producer& ring, std::uint64_t policy) {
  using N = typename M::N;
  const HeadShare share(args);
  const int width = args.head_width();
  const int stride = head_stride<N>(width), at_once = keys_of_tile<N>(width);
  const int bytes = width * static_cast<int>(sizeof(N));
#pragma unroll 1
  for (int values = 0; values < 2; ++values) {
    const int head = args.heads + kv_head + values * args.kv_heads;
    const int leading = (args.heads + (1 + values) * args.kv_heads) * width;
    const N* const from = (values ? layer.window_qkv : layer.window_rotated) + head * width;
#pragma unroll 1
    for (int first = share.keys.begin; first < share.keys.end; first += at_once) {
      const int count = min(at_once, share.keys.end - first);
      std::byte* const to = ring.claim(count * stride);
      ring.copy_rows(to, stride, from + std::int64_t{first} * leading,
                     leading * std::int64_t{sizeof(N)}, count, bytes, policy);
    }
  }
  if (!layer.matrix) return;
  const int row_bytes = width * static_cast<int>(sizeof(float)), rows = share.rows.size();
  const int sums_bytes = rows * static_cast<int>(sizeof(float));
  std::byte* const to = ring.claim(rows * row_bytes + sums_bytes);
  const int first = kv_head * width + share.rows.begin;
  const bool copies = threadIdx.x / 32 == kDecodeThreads / 32 - 1;
  if (copies && threadIdx.x % 32 == 0) {
    ring.copy(to, layer.matrix + std::int64_t{first} * width, rows * row_bytes, policy);
    ring.copy(to + rows * row_bytes, layer.normalizer + first, sums_bytes, policy);
  }
  ring.commit(copies ? rows * row_bytes + sums_bytes : 0);
}

// What a block found for a query head: the weighted sum of values [K], sigma(q) M [K], then the
// highest score, the sum of weights, sigma(q) z, and 1 where z is not all zeros.
constexpr int kRecordExtra = 4;
__host__ __device__ constexpr int record_numbers(int head_width) {
  return 2 * head_width + kRecordExtra;
}

// Numbers of the attention in shared memory; g query heads, at most M::kGroup.
template <class M>
struct AttentionDesk : Desk<M> {
  using N = typename M::N;
  HeadShare share;
  int group, width, stride;
  std::byte* heads;  // [2 g + 2, K] of N: turned queries, turned key, value, queries as they were
  float* records;    // [blocks of the team, g, numbers of a record]
  float* scores;     // [g, keys and the token]
  float* state;      // [2, warps, kMostGroup] highest scores, sums; then [3, kMostGroup], see below
  float *local, *recalled;  // [warps, g, K]

  __device__ explicit AttentionDesk(const Desk<M>& desk, std::byte* shared)
      : Desk<M>(desk),
        share(desk.args),
        group(desk.args.group()),
        width(desk.args.head_width()),
        stride(head_stride<N>(width)),
        heads(shared + desk.args.shared.heads) {
    const SharedLayout& at = desk.args.shared;
    const auto floats = [&](int offset) { return reinterpret_cast<float*>(shared + offset); };
    records = floats(at.records);
    scores = floats(at.scores);
    state = floats(at.state);
    local = floats(at.local);
    recalled = floats(at.recalled);
  }
  __device__ const N* query(int head) const { return row_of(head); }
  __device__ const N* key() const { return row_of(group); }
  __device__ const N* value() const { return row_of(group + 1); }
  __device__ const N* raw_query(int head) const { return row_of(group + 2 + head); }
  __device__ const N* row_of(int row) const {
    return reinterpret_cast<const N*>(heads + row * stride);
  }
  __device__ float* highest(int warp_) const { return state + warp_ * kMostGroup; }
  __device__ float* total(int warp_) const { return state + (kConsumerWarps + warp_) * kMostGroup; }
  // sigma(q) z, and whether z is not all zeros.
  __device__ float* denominators() const { return state + 2 * kConsumerWarps * kMostGroup; }
  __device__ float* gates() const { return denominators() + 2 * kMostGroup; }
  __device__ float* row_of_scores(int head) const {
    return scores + head * this->args.shared.score_stride;
  }
  // The token itself is a key of the first block of a team, and there of the warp that has
  // the fewest others.
  __device__ bool has_token() const {
    return this->place.rank == 0 && this->warp == kConsumerWarps - 1;
  }
  // The keys of a warp are every 8th octet: number i of them, perhaps beyond the last.
  __device__ int key_of_warp(int i) const {
    return (this->warp + i / 8 * kConsumerWarps) * 8 + i % 8;
  }
  // A row among `count` that is there: what a tensor core reads for one that is not has no weight.
  static __device__ int present(int row, int count) { return min(row, count - 1); }
  // Calls use(key, count, rows) for the octets of this warp, two at a time, kApart keys apart: the
  // first key, how many keys of the tile there are from it on, and where it lies.
  template <class Use>
  __device__ __forceinline__ void each_octets(Consumer& ring, Use use) const {
    const int at_once = keys_of_tile<N>(width);
#pragma unroll 1
    for (int first = 0; first < share.keys.size(); first += at_once) {
      const int end = min(share.keys.size(), first + at_once);
      const std::byte* const tile = ring.acquire((end - first) * stride);
#pragma unroll 1
      for (int key = first + this->warp * 8; key < end; key += 2 * kApart)
        use(key, end - key, tile + (key - first) * stride);
      ring.release();
    }
  }
};

// Eight rows and the eight half a head further, as the product left them: lane % 16 has one. They
// turn by their position and go to the team and to the window.
template <class M>
__device__ __forceinline__ void finish_heads(const AttentionDesk<M>& desk, const Mailbox& mailbox,
                                             const LayerPointers<typename M::N>& layer,
                                             const Product<M>& product, int unit, float sum) {
  using N = typename M::N;
  const DecodeArgs<M>& args = desk.args;
  const int width = desk.width, group = desk.group, row = desk.lane % 16, octet = row / 8;
  const auto place = product.head_unit(unit);
  const int section = place.section, column = place.column + row % 8;
  const float value = rounded<N>(sum), other = __shfl_xor_sync(kAllLanes, value, 8);
  const float cosine = desk.angles[column], sine = desk.angles[column + width / 2];
  const float turned = octet ? value * cosine + other * sine : value * cosine - other * sine;
  const bool is_value = section == group + 1;
  auto* const letter = reinterpret_cast<N*>(desk.letter);
  if (desk.lane < 16) {
    letter[row] = N(is_value ? value : turned);
    letter[16 + row] = N(value);
  }
  // Octets of the letter: the two of the row that turned, or of the value, and those of the query.
  constexpr int kVectors = 8 * static_cast<int>(sizeof(N)) / 16;  // of an octet
  std::byte* const to =
      desk.heads + section * desk.stride + place.column * static_cast<int>(sizeof(N));
  mailbox.send_all(letter, (section < group ? 4 : 2) * kVectors, [&](int i) {
    const int at = i / kVectors;
    return to + at / 2 * (group + 2) * desk.stride +
           at % 2 * (width / 2) * static_cast<int>(sizeof(N)) + i % kVectors * 16;
  });
  if (desk.lane >= 16) return;
  const int number = product.row(place, octet) + row % 8;
  layer
      .window_qkv[std::int64_t{args.position} * (args.heads + 2 * args.kv_heads) * width + number] =
      N(value);
  if (section == group)
    layer.window_rotated[std::int64_t{args.position} * (args.heads + args.kv_heads) * width +
                         number] = N(turned);
}

}  // namespace infini
