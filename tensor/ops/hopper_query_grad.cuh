// dQ of local attention on Hopper. An item of work is a block of queries of one head, past which
// the keys and values that it sees go.
#pragma once

#include "tensor/ops/hopper_attention_grad.cuh"

namespace infini::hopper {

template <int kWidth, int kStages, int kBlocks>
struct alignas(1024) QueryShared {
  static constexpr int kSlots = kBlocks;
  Tile<kWidth> queries[kSlots][kConsumers], dy[kSlots][kConsumers];
  Tile<kWidth> keys[kStages], values[kStages];
  Barrier full[kStages], empty[kStages], block_full[kSlots], block_empty[kSlots];
  int items[kSlots];
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <int kWidth, int kStages, int kBlocks>
__device__ __forceinline__ void produce_keys(const GradArgs& args,
                                             QueryShared<kWidth, kStages, kBlocks>& shared) {
  constexpr int kBytes = 2 * kTileBytes<kWidth>;
  const int group = args.heads / args.kv_heads;
  Turn turn, block;
  for (;; block.advance<kBlocks>()) {
    const int item = next_item(args.schedule, shared, block, kConsumers * kBytes);
    if (item < 0) return;
    const auto [head, rank] = args.schedule[item];
    const int segment = head / args.heads, query_head = head % args.heads;
    const int first = (args.schedule.blocks - 1 - rank) * kConsumers;  // tile
    Barrier& block_full = shared.block_full[block.slot];
#pragma unroll 1
    for (int i = 0; i < kConsumers; ++i) {
      const int token = (first + i) * kTile;
      copy_tile(shared.queries[block.slot][i], args.queries, token, query_head, segment,
                block_full);
      copy_tile(shared.dy[block.slot][i], args.dy, token, query_head, segment, block_full);
    }
    const int kv_head = query_head / group, end = min(first + kConsumers, args.tiles);
#pragma unroll 1
    for (int tile = 0; tile < end; ++tile, turn.advance<kStages>()) {
      const int slot = turn.slot;
      wait(shared.empty[slot], turn.parity ^ 1);
      arrive_for(shared.full[slot], kBytes);
      copy_tile(shared.keys[slot], args.keys, tile * kTile, kv_head, segment, shared.full[slot]);
      copy_tile(shared.values[slot], args.values, tile * kTile, kv_head, segment,
                shared.full[slot]);
    }
  }
}

// Of the two rows of a thread.
struct OwnSums {
  float log_sum[2], dot[2];
};
__device__ __forceinline__ OwnSums own_sums(const GradArgs& args, int head, int tile) {
  OwnSums sums = {{std::numeric_limits<float>::infinity(), std::numeric_limits<float>::infinity()},
                  {}};
  if (tile < args.tiles)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float* const row =
          args.row_sums + (std::int64_t{head} * args.tiles + tile) * kRowSums + own_row() + 8 * h;
      sums.log_sum[h] = row[0];
      sums.dot[h] = row[kTile];
    }
  return sums;
}

// Scores of queries (rows) with keys (columns) become probabilities.
__device__ __forceinline__ void exponentiate_rows(float (&scores)[kTile / 2], float scale_log2,
                                                  const OwnSums& sums, bool diagonal) {
#pragma unroll
  for (int i = 0; i < kTile / 2; ++i)
    scores[i] = exp2_approx(scores[i] * scale_log2 - sums.log_sum[i % 4 / 2]);
  if (diagonal)
#pragma unroll
    for (int i = 0; i < kTile / 2; ++i)
      if (i / 4 * 8 + own_column() + i % 2 > own_row() + i % 4 / 2 * 8) scores[i] = 0;
}

// The left factors of an item's products, in registers or where they lie in shared memory.
template <int kWidth, bool kInRegisters>
struct Rows;
template <int kWidth>
struct Rows<kWidth, true> {
  LeftFactor factor[kWidth / 16];

  __device__ __forceinline__ explicit Rows(const __nv_bfloat16* tile) {
    load_factor<kWidth>(tile, factor);
  }
  __device__ __forceinline__ void times(float (&sums)[kTile / 2], const __nv_bfloat16* tile) {
    multiply<kWidth>(sums, factor, AlongRows<kTile>(tile));
  }
};
template <int kWidth>
struct Rows<kWidth, false> : AlongRows<kTile> {
  using AlongRows<kTile>::AlongRows;

  __device__ __forceinline__ void times(float (&sums)[kTile / 2], const __nv_bfloat16* tile) {
    multiply<kWidth>(sums, *this, AlongRows<kTile>(tile));
  }
};

// dS of a tile, as the left factor of dQ, from the products under way: `later` groups were begun
// after them, which end here, too.
template <int later>
__device__ __forceinline__ void score_gradient(float (&scores)[kTile / 2],
                                               float (&dscores)[kTile / 2], float scale_log2,
                                               const OwnSums& sums, bool diagonal) {
  wgmma_wait<1 + later>();
  settle(scores);
  exponentiate_rows(scores, scale_log2, sums, diagonal);
  wgmma_wait<later>();
  settle(dscores);
#pragma unroll
  for (int i = 0; i < kTile / 2; ++i) dscores[i] = scores[i] * (dscores[i] - sums.dot[i % 4 / 2]);
}

// The steps of a warpgroup over the `count` tiles from turn on that its queries see: the last one
// in part if it is number `diagonal`. dQ of a tile is under way while dS of the next one is made.
template <int kWidth, int kStages, class Shared, class Factor>
__device__ __forceinline__ void add_keys(float scale_log2, Shared& shared, int count, int diagonal,
                                         Factor& query, Factor& dy, const OwnSums& sums, Turn& turn,
                                         float (&dqueries)[kWidth / 2]) {
  LeftFactor factor[kTile / 16];
  wait(shared.full[turn.slot], turn.parity);
  {
    float scores[kTile / 2], dscores[kTile / 2];
    query.times(scores, shared.keys[turn.slot]);
    dy.times(dscores, shared.values[turn.slot]);
    score_gradient<0>(scores, dscores, scale_log2, sums, diagonal == 0);
    round_sums(dscores, factor);
  }
  for (int i = 1; i < count; ++i) {
    const int slot = turn.slot;
    turn.advance<kStages>();
    float scores[kTile / 2], dscores[kTile / 2];
    wait(shared.full[turn.slot], turn.parity);
    query.times(scores, shared.keys[turn.slot]);
    dy.times(dscores, shared.values[turn.slot]);
    multiply_add(dqueries, factor, DownColumns<kTile>(shared.keys[slot]));
    score_gradient<1>(scores, dscores, scale_log2, sums, diagonal == i);
    wgmma_wait<0>();
    settle(dqueries);
    release(shared.empty[slot]);
    round_sums(dscores, factor);
  }
  multiply_add(dqueries, factor, DownColumns<kTile>(shared.keys[turn.slot]));
  wgmma_wait<0>();
  settle(dqueries);
  release(shared.empty[turn.slot]);
  turn.advance<kStages>();
}

template <int kWidth, int kStages, int kBlocks, bool kInRegisters>
__device__ __forceinline__ void consume_keys(const GradArgs& args,
                                             QueryShared<kWidth, kStages, kBlocks>& shared,
                                             int consumer) {
  Turn turn, block;
  for (;; block.advance<kBlocks>()) {
    wait(shared.block_full[block.slot], block.parity);
    const int item = shared.items[block.slot];
    if (item < 0) return;
    const auto [head, rank] = args.schedule[item];
    const int first = (args.schedule.blocks - 1 - rank) * kConsumers, tile = first + consumer;
    const OwnSums sums = own_sums(args, head, tile);
    Rows<kWidth, kInRegisters> query(shared.queries[block.slot][consumer]);
    Rows<kWidth, kInRegisters> dy(shared.dy[block.slot][consumer]);
    if constexpr (kInRegisters) release(shared.block_empty[block.slot]);

    const int segment = head / args.heads, column = head % args.heads * kWidth;
    expect_rows<kWidth>(args.dqueries, segment, tile * kTile, args.tokens, column);
    float dqueries[kWidth / 2];
    clear(dqueries);
    const int count = min(tile + 1, args.tiles), end = min(first + kConsumers, args.tiles);
    add_keys<kWidth, kStages>(args.scale_log2, shared, count, tile, query, dy, sums, turn,
                              dqueries);
#pragma unroll 1
    for (int after = count; after < end; ++after, turn.advance<kStages>()) {
      wait(shared.full[turn.slot], turn.parity);
      release(shared.empty[turn.slot]);
    }
    if constexpr (!kInRegisters) release(shared.block_empty[block.slot]);

    store_rows<kWidth>(dqueries, args.scale, args.dqueries, segment, tile * kTile, args.tokens,
                       column);
  }
}

#endif

template <int kWidth, int kStages, int kBlocks, bool kInRegisters>
__global__ void __launch_bounds__(kThreads, 1)
    query_grad_kernel(const __grid_constant__ GradArgs args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) std::byte memory[];
  auto& shared = *reinterpret_cast<QueryShared<kWidth, kStages, kBlocks>*>(memory);
  init_barriers(shared);
  if (const int consumer = warpgroup(); consumer == kConsumers) {
    keep_registers<kProducerRegisters>();
    if (threadIdx.x % kWarpgroup == 0) produce_keys(args, shared);
  } else {
    take_registers<kConsumerRegisters>();
    consume_keys<kWidth, kStages, kBlocks, kInRegisters>(args, shared, consumer);
  }
#endif
}

}  // namespace infini::hopper
