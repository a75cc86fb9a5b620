// How the attention of one token is shared out: a block has some keys of the window and as many
// rows of the memory, for all query heads of a key/value head.
#pragma once

#include "tensor/ops/decode_product.cuh"

namespace infini {

// A block's part in a key/value head: some keys of the window, as many rows of the memory, and in
// the end some columns, by pairs.
struct HeadShare {
  bool any;  // the last blocks may have none
  int kv_head, split;
  Share keys, rows, pairs;

  template <class N>
  __device__ explicit HeadShare(const DecodeArgs<N>& args)
      : any(static_cast<int>(blockIdx.x) < args.kv_heads * args.splits),
        kv_head(static_cast<int>(blockIdx.x) / args.splits),
        split(static_cast<int>(blockIdx.x) % args.splits),
        keys(share_of(args.position, split, args.splits)),
        rows(share_of(args.head_width, split, args.splits)),
        pairs(share_of(args.head_width / 2, split, args.splits)) {}
};

// Keys or values lie in a stage one after the other, padded like rows.
template <class N>
__host__ __device__ int key_stride(int head_width) {
  return head_width * static_cast<int>(sizeof(N)) + kRowPad;
}
template <class N>
__device__ __forceinline__ int keys_of_stage(int head_width) {
  return kOctet * min(kConsumerWarps, kStageBytes / (kOctet * key_stride<N>(head_width)));
}
// Rows of the memory lie there without gaps.
__device__ __forceinline__ int rows_of_stage(int head_width) {
  return kStageBytes / (head_width * static_cast<int>(sizeof(float)));
}

// The copying warp's side: the block's keys, values and rows of the memory.
template <class N>
__device__ void stream_heads(const DecodeArgs<N>& args, const LayerPointers<N>& layer, Ring& ring,
                             std::uint64_t policy) {
  const HeadShare share(args);
  if (!share.any) return;
  const int lane = static_cast<int>(threadIdx.x) % 32, width = args.head_width;
  const int stride = key_stride<N>(width), at_once = keys_of_stage<N>(width);
  const std::int64_t qkv_leading = std::int64_t{args.heads + 2 * args.kv_heads} * width;
  const std::int64_t rotated_leading = std::int64_t{args.heads + args.kv_heads} * width;
  const auto stream_keys = [&](const N* from, std::int64_t leading) {
    const int bytes = width * static_cast<int>(sizeof(N));
    for (int first = share.keys.begin; first < share.keys.end; first += at_once) {
      const int count = min(at_once, share.keys.end - first);
      std::byte* const to = ring.claim(count * bytes);
      for (int i = lane; i < count; i += 32)
        ring.copy(to + i * stride, from + (first + i) * leading, bytes, policy);
      ring.advance();
    }
  };
  stream_keys(layer.window_rotated + (args.heads + share.kv_head) * width, rotated_leading);
  stream_keys(layer.window_qkv + (args.heads + args.kv_heads + share.kv_head) * width, qkv_leading);
  if (!layer.matrix) return;
  const int rows = rows_of_stage(width);
  for (int first = share.rows.begin; first < share.rows.end; first += rows) {
    const int bytes = min(rows, share.rows.end - first) * width * static_cast<int>(sizeof(float));
    std::byte* const to = ring.claim(bytes);
    if (lane == 0)
      ring.copy(to, layer.matrix + (std::int64_t{share.kv_head} * width + first) * width, bytes,
                policy);
    ring.advance();
  }
}

// Numbers of the attention in shared memory; g query heads.
template <class N>
struct AttentionDesk : Desk<N> {
  HeadShare share;
  int group, width;
  float* raw;          // [g + 2, K] queries, key and value of the token
  float* turned;       // [g + 1, K] queries and key at their position
  std::byte* queries;  // bf16: [g, K] as operands of octets
  float* mapped;       // [g, rows] sigma(q)
  float* normalizer;   // [rows]
  float* scores;       // [g, keys and the token]
  float* state;        // [4, warps, kMostGroup] highest scores, sums; then [2, kMostGroup] of rows
  float *local, *recalled;  // [warps, g, K]

  __device__ explicit AttentionDesk(const Desk<N>& desk, std::byte* shared)
      : Desk<N>(desk), share(desk.args), group(desk.args.group()), width(desk.args.head_width) {
    const SharedLayout& at = desk.args.shared;
    const auto floats = [&](int offset) { return reinterpret_cast<float*>(shared + offset); };
    raw = floats(at.raw);
    turned = floats(at.turned);
    queries = shared + at.queries;
    mapped = floats(at.mapped);
    normalizer = floats(at.normalizer);
    scores = floats(at.scores);
    state = floats(at.state);
    local = floats(at.local);
    recalled = floats(at.recalled);
  }
  __device__ float* highest(int warp_) const { return state + warp_ * kMostGroup; }
  __device__ float* total(int warp_) const { return state + (kConsumerWarps + warp_) * kMostGroup; }
  __device__ float* denominators() const { return state + 2 * kConsumerWarps * kMostGroup; }
  __device__ float* row_of_scores(int head) const {
    return scores + head * this->args.shared.score_stride;
  }
  // The token itself is a key of the first block of a head, and there of warp 0.
  __device__ bool has_token() const { return share.split == 0 && this->warp == 0; }
  // The keys of a warp are every 8th octet: number i of them, perhaps beyond the last.
  __device__ int key_of_warp(int i) const {
    return (this->warp + i / kOctet * kConsumerWarps) * kOctet + i % kOctet;
  }
  // Calls use(first, stage) for the stages of this block's keys.
  template <class Use>
  __device__ void each_stage(Ring& ring, Use use) const {
    for (int first = 0; first < share.keys.size(); first += keys_of_stage<N>(width)) {
      use(first, ring.acquire());
      ring.release();
    }
  }
  // Calls use(key, row) for the octets of a stage that are this warp's: their first key and where
  // it lies.
  template <class Use>
  __device__ void each_octet(int first, const std::byte* stage, Use use) const {
    const int end = min(share.keys.size(), first + keys_of_stage<N>(width));
    for (int key = first; key < end; key += kOctet)
      if (key / kOctet % kConsumerWarps == this->warp)
        use(key, stage + (key - first) * key_stride<N>(width));
  }
};

// Queries, key and value of the token from the other blocks, turned and mapped.
template <class N>
__device__ void stage_heads(const AttentionDesk<N>& desk, const LayerPointers<N>& layer,
                            const std::uint32_t* qkv) {
  constexpr int n = kPackSize<N>;
  const DecodeArgs<N>& args = desk.args;
  const int group = desk.group, width = desk.width, packs = width / n, half = width / 2;
  const HeadShare& share = desk.share;
  // Loads that need not wait come first.
  if (layer.normalizer)
    for (int i = desk.tid; i < share.rows.size(); i += kConsumers)
      desk.normalizer[i] = layer.normalizer[share.kv_head * width + share.rows.begin + i];
#pragma unroll 1
  for (int item = desk.tid; item < (group + 2) * packs; item += kConsumers) {
    const int section = item / packs, pack = item % packs;
    const int head = section < group    ? share.kv_head * group + section
                     : section == group ? args.heads + share.kv_head
                                        : args.heads + args.kv_heads + share.kv_head;
    const uint4* const from = reinterpret_cast<const uint4*>(qkv) + head * packs + pack;
    const uint4 words = await(from, load_relaxed(from), desk.patience);
    float values[n];
    unpack<N>(words, values);
    store_pack<n>(desk.raw + section * width + pack * n, values);
  }
  sync_consumers();
  N* const key_row =
      layer.window_rotated +
      (std::int64_t{args.position} * (args.heads + args.kv_heads) + args.heads + share.kv_head) *
          width;
#pragma unroll 1
  for (int item = desk.tid; item < (group + 1) * half; item += kConsumers) {
    const int section = item / half, c = item % half;
    const float low = desk.raw[section * width + c], high = desk.raw[section * width + c + half];
    const float cosine = desk.angles[c], sine = desk.angles[c + half];
    const float turned[2] = {rounded<N>(low * cosine - high * sine),
                             rounded<N>(high * cosine + low * sine)};
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int column = c + e * half;
      desk.turned[section * width + column] = turned[e];
      if (section == group) {
        if (share.split == 0) key_row[column] = N(turned[e]);
      } else if constexpr (sizeof(N) == 2) {  // as store_operand does
        const int in = column % 32, word = column / 32 * 16 + in % 8 / 2 * 4 + in / 8;
        reinterpret_cast<N*>(desk.queries + section * width * 2)[2 * word + in % 2] = N(turned[e]);
      }
    }
  }
#pragma unroll 1
  for (int item = desk.tid; item < group * share.rows.size(); item += kConsumers) {
    const int head = item / share.rows.size(), row = item % share.rows.size();
    const float q = desk.raw[head * width + share.rows.begin + row];
    desk.mapped[head * args.shared.slice + row] = q > 0 ? q + 1 : expf(q);
  }
  sync_consumers();
}

}  // namespace infini
