// dQ of local attention on Hopper:  dQ = scale dS K, from the gradients of scores that the kernel
// of hopper_key_grad.cuh leaves. An item of work is a block of queries of one head, past which the
// keys that it sees go.
#pragma once

#include "tensor/ops/hopper_attention_grad.cuh"

namespace infini::hopper {

template <int kWidth, int kStages>
struct alignas(1024) QueryShared {
  static constexpr int kSlots = 2;
  Tile<kWidth> keys[kStages];
  ScoreTile scores[kStages][kConsumers];
  Barrier full[kStages], empty[kStages], block_full[kSlots], block_empty[kSlots];
  int items[kSlots];
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <int kWidth, int kStages>
__device__ __forceinline__ void produce_keys(const GradArgs& args,
                                             QueryShared<kWidth, kStages>& shared) {
  const int group = args.heads / args.kv_heads;
  Turn turn, block;
  for (;; block.advance<shared.kSlots>()) {
    const int item = next_item(args.schedule, shared, block, 0);
    if (item < 0) return;
    const auto [head, rank] = args.schedule[item];
    const int segment = head / args.heads, kv_head = head % args.heads / group;
    const int first = (args.schedule.blocks - 1 - rank) * kConsumers;  // tile
    const int end = min(first + kConsumers, args.tiles);
#pragma unroll 1
    for (int tile = 0; tile < end; ++tile, turn.advance<kStages>()) {
      const int slot = turn.slot, first_seen = max(tile, first);
      wait(shared.empty[slot], turn.parity ^ 1);
      arrive_for(shared.full[slot], kTileBytes<kWidth> + (end - first_seen) * kScoreTileBytes);
      copy_tile(shared.keys[slot], args.keys, tile * kTile, kv_head, segment, shared.full[slot]);
#pragma unroll 1
      for (int i = first_seen; i < end; ++i)
        copy_bytes(shared.scores[slot][i - first], args.score_tile(head, i, tile), kScoreTileBytes,
                   shared.full[slot]);
    }
  }
}

template <int kWidth, int kStages>
__device__ __forceinline__ void consume_keys(const GradArgs& args,
                                             QueryShared<kWidth, kStages>& shared, int consumer) {
  Turn turn, block;
  for (;; block.advance<shared.kSlots>()) {
    wait(shared.block_full[block.slot], block.parity);
    const int item = shared.items[block.slot];
    release(shared.block_empty[block.slot]);
    if (item < 0) return;
    const auto [head, rank] = args.schedule[item];
    const int first = (args.schedule.blocks - 1 - rank) * kConsumers, tile = first + consumer;
    const int count = tile < args.tiles ? tile + 1 : 0, end = min(first + kConsumers, args.tiles);
    const int segment = head / args.heads, column = head % args.heads * kWidth;
    const OwnRows<kWidth> own(args.dqueries, segment, tile * kTile, args.tokens, column);
    typename OwnRows<kWidth>::Met met;
    own.read(met);

    float dqueries[kWidth / 2];
    clear(dqueries);
    int before = -1;  // the slot of the product under way
    for (int i = 0; i < end; ++i, turn.advance<kStages>()) {
      const int slot = turn.slot;
      wait(shared.full[slot], turn.parity);
      if (i < count) {
        multiply_add(dqueries, DownColumns<kTile>(shared.scores[slot][consumer]),
                     DownColumns<kTile>(shared.keys[slot]));
        wgmma_wait<1>();
      } else {
        wgmma_wait<0>();
        release(shared.empty[slot]);
      }
      if (before >= 0) release(shared.empty[before]);
      before = i < count ? slot : -1;
    }
    wgmma_wait<0>();
    settle(dqueries);
    if (before >= 0) release(shared.empty[before]);

    own.store(dqueries, args.scale, met);
  }
}

#endif

constexpr int kQueryConsumerRegisters = 224, kQueryProducerRegisters = 56;

template <int kWidth, int kStages>
__global__ void __launch_bounds__(kThreads, 1)
    query_grad_kernel(const __grid_constant__ GradArgs args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) std::byte memory[];
  auto& shared = *reinterpret_cast<QueryShared<kWidth, kStages>*>(memory);
  init_barriers(shared);
  if (const int consumer = warpgroup(); consumer == kConsumers) {
    keep_registers<kQueryProducerRegisters>();
    if (threadIdx.x % kWarpgroup == 0) produce_keys(args, shared);
  } else {
    take_registers<kQueryConsumerRegisters>();
    consume_keys(args, shared, consumer);
  }
#endif
}

}  // namespace infini::hopper
