// What the sums of the compressive memory (memory.h) give to the gradients of keys and values,
// added where the kernel of hopper_key_grad.cuh holds those of local attention in registers:
//   dV += sigma(K) dU,   dK += (V dU^T + du) sigma'(K), with keys that were not turned.
// The values are in shared memory already; keys and dU come through the ring after the queries.
#pragma once

#include "tensor/ops/hopper_attention_grad.cuh"
#include "tensor/ops/memory_tiles.cuh"

namespace infini::hopper {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// A slot for the keys of all consumers, and one for dU and du. The chunks of dU, of 64 columns, lie
// where a tile of queries and one of dy would.
template <int kWidth, int kStages, class Shared>
__device__ __forceinline__ void produce_sums_grad(const SumsGradArgs& args, Shared& shared,
                                                  int segment, int kv_head, int kv_heads, int token,
                                                  Turn& turn) {
  const auto begin = [&](int bytes) -> Barrier& {
    Barrier& full = shared.full[turn.slot];
    wait(shared.empty[turn.slot], turn.parity ^ 1);
    arrive_for(full, bytes);
    return full;
  };
  {
    Barrier& full = begin(kConsumers * kTileBytes<kWidth>);
    copy_tile(shared.queries[turn.slot], args.keys, token, kv_head, segment, full);
    copy_tile(shared.dy[turn.slot], args.keys, token + kTile, kv_head, segment, full);
    turn.advance<kStages>();
  }
  {
    constexpr int kVectorBytes = kWidth * static_cast<int>(sizeof(float));
    const int state = segment * kv_heads + kv_head;
    Barrier& full = begin(kWidth * kWidth * static_cast<int>(sizeof(__nv_bfloat16)) + kVectorBytes);
    copy_tile(shared.queries[turn.slot], args.dmatrix, 0, 0, state, full);
    if constexpr (kWidth > kChunk) copy_tile(shared.dy[turn.slot], args.dmatrix, 0, 1, state, full);
    copy_bytes(shared.row_sums[turn.slot], args.dnormalizer + std::int64_t{state} * kWidth,
               kVectorBytes, full);
    turn.advance<kStages>();
  }
}

// sigma of a tile's keys, zeros for padding, as the left factor of products over its columns.
template <int kWidth>
__device__ __forceinline__ void load_mapped(const __nv_bfloat16* tile, const std::uint8_t* keep,
                                            int segment, int token, int tokens,
                                            LeftFactor (&mapped)[kWidth / 16]) {
  load_factor<kWidth>(tile, mapped);
  bool kept[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = token + own_row() + 8 * h;
    kept[h] = row < tokens && (!keep || keep[std::int64_t{segment} * tokens + row]);
  }
#pragma unroll
  for (int s = 0; s < kWidth / 16; ++s)
#pragma unroll
    for (int word = 0; word < 4; ++word)
      mapped[s][word] = kept[word % 2] ? map_pair(mapped[s][word]) : 0;
}

// The consumer's part: dkeys, of turned keys, are scaled and turned back before they are added to.
template <int kWidth, int kStages, class Shared>
__device__ __forceinline__ void add_sums_grad(const GradArgs& args, Shared& shared, int consumer,
                                              int segment, int token,
                                              const AlongRows<kTile>& values, Turn& turn,
                                              float (&dkeys)[kWidth / 2],
                                              float (&dvalues)[kWidth / 2]) {
#pragma unroll
  for (int h = 0; h < 2; ++h)
    if (const int row = token + own_row() + 8 * h; args.dkeys.angles && row < args.tokens)
      turn_back<kWidth>(dkeys, args.dkeys.angles + std::int64_t{row} * kWidth, h);
  LeftFactor mapped[kWidth / 16];
  wait(shared.full[turn.slot], turn.parity);
  load_mapped<kWidth>(consumer == 0 ? shared.queries[turn.slot] : shared.dy[turn.slot],
                      args.sums.keep, segment, token, args.tokens, mapped);
  release(shared.empty[turn.slot]);
  turn.advance<kStages>();

  // Chunks are as far apart as the rings of queries and of dy.
  constexpr int kApart = kStages * kTileBytes<kWidth> / kRowBytes;
  wait(shared.full[turn.slot], turn.parity);
  const __nv_bfloat16* const dmatrix = shared.queries[turn.slot];
  const DownColumns<kApart> down(dmatrix);
  wgmma_fence();
#pragma unroll
  for (int s = 0; s < kWidth / 16; ++s) wgmma_down(dvalues, mapped[s], down.step(s));
  wgmma_group();
#pragma unroll
  for (int chunk = 0; chunk < kWidth / kChunk; ++chunk) {
    const AlongRows<kApart> along(dmatrix, chunk * kChunk);
    float dmapped[kChunk / 2];
    wgmma_fence();
    wgmma<false>(dmapped, values.step(0), along.step(0));
#pragma unroll
    for (int s = 1; s < kWidth / 16; ++s) wgmma<true>(dmapped, values.step(s), along.step(s));
    wgmma_group();
    wgmma_wait<0>();
    settle(dmapped);
#pragma unroll
    for (int j = 0; j < kChunk / 8; ++j) {
      const int eighth = chunk * kChunk / 8 + j;
      const float2 du =
          *reinterpret_cast<const float2*>(shared.row_sums[turn.slot] + 8 * eighth + own_column());
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const std::uint32_t pair = mapped[eighth / 2][eighth % 2 * 2 + h];
        float* const dkey = dkeys + 4 * eighth + 2 * h;
        const float* const sum = dmapped + 4 * j + 2 * h;
        dkey[0] = args.scale * dkey[0] + (sum[0] + du.x) * sigma_slope(low_half(pair));
        dkey[1] = args.scale * dkey[1] + (sum[1] + du.y) * sigma_slope(high_half(pair));
      }
    }
  }
  settle(dvalues);
  release(shared.empty[turn.slot]);
  turn.advance<kStages>();
}

#endif
}  // namespace infini::hopper
