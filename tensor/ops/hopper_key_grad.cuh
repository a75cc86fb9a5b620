// dK, dV and dS of local attention on Hopper. An item of work is a block of keys of one key head;
// its keys and values stay in shared memory while the queries that see them pass by. All is
// transposed: rows are keys, so that P^T and dS^T are left factors where they come out of the
// products before.
#pragma once

#include "tensor/ops/hopper_sums_grad.cuh"

namespace infini::hopper {

template <int kWidth, int kStages>
struct alignas(1024) KeyShared {
  static constexpr int kSlots = 2;
  Tile<kWidth> keys[kSlots][kConsumers], values[kSlots][kConsumers];
  Tile<kWidth> queries[kStages], dy[kStages];
  float row_sums[kStages][kRowSums];
  Barrier full[kStages], empty[kStages], block_full[kSlots], block_empty[kSlots];
  int items[kSlots];
};
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <int kWidth, int kStages>
__device__ __forceinline__ void produce_queries(const GradArgs& args,
                                                KeyShared<kWidth, kStages>& shared) {
  constexpr int kBytes = 2 * kTileBytes<kWidth>;
  const int group = args.heads / args.kv_heads;
  Turn turn, block;
  for (;; block.advance<KeyShared<kWidth, kStages>::kSlots>()) {
    const int item = next_item(args.schedule, shared, block, kConsumers * kBytes);
    if (item < 0) return;
    const auto [head, rank] = args.schedule[item];
    const int segment = head / args.kv_heads, kv_head = head % args.kv_heads;
    Barrier& block_full = shared.block_full[block.slot];
#pragma unroll 1
    for (int i = 0; i < kConsumers; ++i) {
      const int token = rank * kBlock + i * kTile;
      copy_tile(shared.keys[block.slot][i], args.keys, token, kv_head, segment, block_full);
      copy_tile(shared.values[block.slot][i], args.values, token, kv_head, segment, block_full);
    }
#pragma unroll 1
    for (int query_head = kv_head * group; query_head < (kv_head + 1) * group; ++query_head) {
      const float* const row_sums =
          args.row_sums + (std::int64_t{segment} * args.heads + query_head) * args.tiles * kRowSums;
#pragma unroll 1
      for (int tile = rank * kConsumers; tile < args.tiles; ++tile, turn.advance<kStages>()) {
        const int slot = turn.slot;
        wait(shared.empty[slot], turn.parity ^ 1);
        arrive_for(shared.full[slot], kBytes + static_cast<int>(kRowSums * sizeof(float)));
        copy_tile(shared.queries[slot], args.queries, tile * kTile, query_head, segment,
                  shared.full[slot]);
        copy_bytes(shared.row_sums[slot], row_sums + tile * kRowSums, kRowSums * sizeof(float),
                   shared.full[slot]);
        copy_tile(shared.dy[slot], args.dy, tile * kTile, query_head, segment, shared.full[slot]);
      }
    }
    if (args.sums.dnormalizer)
      produce_sums_grad<kWidth, kStages>(args.sums, shared, segment, kv_head, args.kv_heads,
                                         rank * kBlock, turn);
  }
}

// Scores of keys (rows) with queries (columns) become probabilities.
__device__ __forceinline__ void exponentiate_columns(float (&scores)[kTile / 2], float scale_log2,
                                                     const float* log_sums, bool diagonal) {
#pragma unroll
  for (int j = 0; j < kTile / 8; ++j) {
    const float2 sums = *reinterpret_cast<const float2*>(log_sums + 8 * j + own_column());
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& score = scores[4 * j + i];
      score = exp2_approx(score * scale_log2 - (i % 2 ? sums.y : sums.x));
    }
  }
  if (diagonal)
#pragma unroll
    for (int i = 0; i < kTile / 2; ++i)
      if (i / 4 * 8 + own_column() + i % 2 < own_row() + i % 4 / 2 * 8) scores[i] = 0;
}

// dscores, the gradient of probabilities, becomes that of scores.
__device__ __forceinline__ void weigh_columns(const float (&probabilities)[kTile / 2],
                                              float (&dscores)[kTile / 2], const float* dots) {
#pragma unroll
  for (int j = 0; j < kTile / 8; ++j) {
    const float2 sums = *reinterpret_cast<const float2*>(dots + 8 * j + own_column());
#pragma unroll
    for (int i = 4 * j; i < 4 * j + 4; ++i)
      dscores[i] = probabilities[i] * (dscores[i] - (i % 2 ? sums.y : sums.x));
  }
}

// Writes dS^T as a score tile from its left factor; four lanes exchange words so that each writes
// 16 bytes.
__device__ __forceinline__ void store_scores(const LeftFactor (&factor)[kTile / 16],
                                             __nv_bfloat16* tile) {
#pragma unroll
  for (int h = 0; h < 2; ++h)
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      std::uint32_t words[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) words[j] = factor[2 * part + j / 2][j % 2 * 2 + h];
      transpose_quad(words);
      const int row = own_row() + 8 * h, piece = (4 * part + lane() % 4) ^ row % 8;
      *reinterpret_cast<uint4*>(tile + row * kChunk + 8 * piece) =
          make_uint4(words[0], words[1], words[2], words[3]);
    }
}

// The steps of a warpgroup over the `count` tiles of a head from turn on, which see its keys: the
// first one in part. While it takes exponentials or weighs, a product that needs neither is under
// way; the other warpgroup's fill the gaps. Registers do for no more. dS of the first one goes to
// `dscores`, of the next ones `apart` score tiles further, one more each time.
template <int kWidth, int kStages>
__device__ __forceinline__ void add_queries(float scale_log2, KeyShared<kWidth, kStages>& shared,
                                            int count, __nv_bfloat16* dscores, int apart,
                                            const AlongRows<kTile>& keys,
                                            const AlongRows<kTile>& values, Turn& turn,
                                            float (&dkeys)[kWidth / 2],
                                            float (&dvalues)[kWidth / 2]) {
  for (int i = 0; i < count; ++i, turn.advance<kStages>()) {
    const int slot = turn.slot;
    float scores[kTile / 2], dots[kTile / 2];
    LeftFactor factor[kTile / 16], dfactor[kTile / 16];
    wait(shared.full[slot], turn.parity);
    multiply<kWidth>(scores, keys, AlongRows<kTile>(shared.queries[slot]));
    multiply<kWidth>(dots, values, AlongRows<kTile>(shared.dy[slot]));
    wgmma_wait<1>();
    settle(scores);
    exponentiate_columns(scores, scale_log2, shared.row_sums[slot], i == 0);
    round_sums(scores, factor);
    multiply_add(dvalues, factor, DownColumns<kTile>(shared.dy[slot]));
    wgmma_wait<1>();
    settle(dots);
    weigh_columns(scores, dots, shared.row_sums[slot] + kTile);
    round_sums(dots, dfactor);
    multiply_add(dkeys, dfactor, DownColumns<kTile>(shared.queries[slot]));
    store_scores(dfactor, dscores);
    dscores += apart++ * (kTile * kTile);
    wgmma_wait<0>();
    settle(dkeys);
    settle(dvalues);
    release(shared.empty[slot]);
  }
}

template <int kWidth, int kStages>
__device__ __forceinline__ void consume_queries(const GradArgs& args,
                                                KeyShared<kWidth, kStages>& shared, int consumer) {
  const int group = args.heads / args.kv_heads;
  Turn turn, block;
  for (;; block.advance<KeyShared<kWidth, kStages>::kSlots>()) {
    wait(shared.block_full[block.slot], block.parity);
    const int item = shared.items[block.slot];
    if (item < 0) return;
    const auto [head, rank] = args.schedule[item];
    const int tile = rank * kConsumers + consumer, count = args.tiles - tile;
    const AlongRows<kTile> keys(shared.keys[block.slot][consumer]);
    const AlongRows<kTile> values(shared.values[block.slot][consumer]);
    const int segment = head / args.kv_heads, column = head % args.kv_heads * kWidth;
    const int token = tile * kTile;
    OwnRows<kWidth>(args.dvalues, segment, token, args.tokens, column).expect();
    OwnRows<kWidth>(args.dkeys, segment, token, args.tokens, column).expect();
    float dkeys[kWidth / 2], dvalues[kWidth / 2];
    clear(dkeys);
    clear(dvalues);
    for (int member = 0; member < group; ++member) {
#pragma unroll 1
      for (int before = 0; before < consumer; ++before, turn.advance<kStages>()) {
        wait(shared.full[turn.slot], turn.parity);
        release(shared.empty[turn.slot]);
      }
      const int query_head = segment * args.heads + head % args.kv_heads * group + member;
      add_queries(args.scale_log2, shared, count, args.score_tile(query_head, tile, tile), tile + 1,
                  keys, values, turn, dkeys, dvalues);
    }
    GradRows rows_of_keys = args.dkeys;
    float scale = args.scale;
    if (args.sums.dnormalizer) {
      add_sums_grad<kWidth, kStages>(args, shared, consumer, segment, token, values, turn, dkeys,
                                     dvalues);
      rows_of_keys.angles = nullptr;
      scale = 1;
    }
    release(shared.block_empty[block.slot]);

    OwnRows<kWidth>(args.dvalues, segment, token, args.tokens, column).store(dvalues, 1);
    OwnRows<kWidth>(rows_of_keys, segment, token, args.tokens, column).store(dkeys, scale);
  }
}

#endif

template <int kWidth, int kStages>
__global__ void __launch_bounds__(kThreads, 1)
    key_grad_kernel(const __grid_constant__ GradArgs args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) std::byte memory[];
  auto& shared = *reinterpret_cast<KeyShared<kWidth, kStages>*>(memory);
  init_barriers(shared);
  if (const int consumer = warpgroup(); consumer == kConsumers) {
    keep_registers<kProducerRegisters>();
    if (threadIdx.x % kWarpgroup == 0) produce_queries(args, shared);
  } else {
    take_registers<kConsumerRegisters>();
    consume_queries(args, shared, consumer);
  }
#endif
}

}  // namespace infini::hopper
