// The backward pass of local attention on Hopper. With P the probabilities and D_r = sum_c dy_rc
// y_rc:  dS = P (dy V^T - D),  dQ = scale dS K,  dK = scale dS^T Q,  dV = P^T dy.
//
// One kernel walks over the queries that see a block of keys: it computes P and dS from the
// log-sum-exp in registers, adds up dK and dV, and writes dS, rounded, for the other kernel, which
// walks over the keys that a block of queries sees. So nothing is added up in memory, in an order
// that varies between runs, and nothing is computed twice. Two warpgroups compute, 64 rows each; a
// thread of a third keeps rings of tiles in shared memory full.
#pragma once

#include "tensor/ops/hopper_attention.cuh"

namespace infini::hopper {

constexpr int kRowSums = 2 * kTile;  // of a tile: log2(e) times the log-sum-exp, then D

// dS^T of 64 keys and 64 queries, in the order of a tile in shared memory.
using ScoreTile = Tile<kChunk>;
constexpr int kScoreTileBytes = kTileBytes<kChunk>;

// What the memory's sums ask of the same keys and values (hopper_sums_grad.cuh).
struct SumsGradArgs {
  CUtensorMap keys;          // of tiles, not turned
  CUtensorMap dmatrix;       // dU [B S Hk, K, K] in bf16, K rows of 64 columns
  const float* dnormalizer;  // du [B S Hk, K]; null when nothing is asked
  const std::uint8_t* keep;  // [R], or null
};

struct GradArgs {
  CUtensorMap queries, dy, keys, values;  // of tiles
  SumsGradArgs sums;
  const float* row_sums;   // [B S, H, tiles, 2, 64]
  __nv_bfloat16* dscores;  // tiles of the heads of a schedule
  Schedule schedule;
  int tokens, tiles;  // of a segment
  int heads, kv_heads;
  float scale, scale_log2;            // log2(e) times scale
  GradRows dqueries, dkeys, dvalues;  // from column 0 of their own heads on

  // dS^T of tile `key` and tile `query`, key <= query; query heads are numbered through all
  // segments.
  __device__ __forceinline__ __nv_bfloat16* score_tile(int head, int query, int key) const {
    const std::int64_t each = tiles * (tiles + 1) / 2;
    const int first = schedule.first_kv_head * (heads / kv_heads);
    return dscores + ((head - first) * each + query * (query + 1) / 2 + key) * (kTile * kTile);
  }
};

constexpr int kRowSumThreads = 256;

// A row of row_sums. Rows beyond the last token get P = 0.
__device__ __forceinline__ void put_row_sums(float* row_sums, std::int64_t head, int tiles, int row,
                                             int tokens, const float* log_sum, float dot) {
  constexpr float kLog2E = 1.44269504088896341f;
  float* const out = row_sums + (head * tiles + row / kTile) * kRowSums + row % kTile;
  out[0] =
      row < tokens ? kLog2E * log_sum[head * tokens + row] : std::numeric_limits<float>::infinity();
  out[kTile] = dot;
}

// Fills row_sums from the row dots [B S, H, T], a thread for each of `count` rows.
static __global__ void __launch_bounds__(kRowSumThreads)
    given_row_sums_kernel(const float* dots, const float* log_sum, int tokens, int tiles,
                          std::int64_t count, float* row_sums) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kRowSumThreads + threadIdx.x;
  if (i >= count) return;
  const std::int64_t head = i / (tiles * kTile);
  const int row = static_cast<int>(i % (tiles * kTile));
  put_row_sums(row_sums, head, tiles, row, tokens, log_sum,
               row < tokens ? dots[head * tokens + row] : 0);
}

// Fills row_sums. A thread takes 16 bytes of some rows, all of a tile of one head in a thread
// block.
template <int kWidth>
__global__ void __launch_bounds__(kRowSumThreads)
    row_sums_kernel(const __nv_bfloat16* y, const __nv_bfloat16* dy, const float* log_sum,
                    int tokens, int tiles, float* row_sums) {
  constexpr int kPack = 8, kLanes = kWidth / kPack, kAbreast = kRowSumThreads / kLanes;
  constexpr int kRows = kTile / kAbreast;
  const int tile = blockIdx.x % tiles, heads = gridDim.y;
  const std::int64_t segment = blockIdx.x / tiles, head = segment * heads + blockIdx.y;

  const int row = threadIdx.x / kLanes, part = threadIdx.x % kLanes;
  Held<kPack, __nv_bfloat16> ys[kRows], dys[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i)
    if (const int token = tile * kTile + row + i * kAbreast; token < tokens) {
      const std::int64_t offset =
          ((segment * tokens + token) * heads + blockIdx.y) * kWidth + part * kPack;
      ys[i] = hold<kPack>(y + offset);
      dys[i] = hold<kPack>(dy + offset);
    }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int token = tile * kTile + row + i * kAbreast;
    float sum = 0;
    if (token < tokens)
#pragma unroll
      for (int e = 0; e < kPack; ++e) sum += ys[i][e] * dys[i][e];
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2)
      sum += __shfl_xor_sync(0xffffffff, sum, distance);
    if (part == 0) put_row_sums(row_sums, head, tiles, token, tokens, log_sum, sum);
  }
}

}  // namespace infini::hopper
