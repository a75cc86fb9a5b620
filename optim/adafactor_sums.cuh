// What tiles of a parameter have found, put together: running means, and the pace of the update.
#pragma once

#include "optim/adafactor_parts.cuh"

namespace infini::adafactor {

template <class T>
__device__ __forceinline__ void move_mean(T& running, double sum, std::int64_t count,
                                          const Rule& rule) {
  const double mean = sum / static_cast<double>(count) + rule.epsilon;
  running = static_cast<T>(rule.keep * running + (1 - rule.keep) * mean);
}

// What a block folds of an entry: rows, or columns.
struct Folded {
  bool of_rows;
  Fold fold;
  std::int64_t begin;

  template <class T>
  __device__ __forceinline__ explicit Folded(const Entry<T>& entry) {
    const std::int64_t block = blockIdx.x - entry.first_fold, rows = entry.row_fold().blocks();
    of_rows = block < rows;
    fold = of_rows ? entry.row_fold() : entry.column_fold();
    begin = (of_rows ? block : block - rows) * fold.width();
  }
};

// One block per width of a fold.
template <class T>
__global__ void __launch_bounds__(kThreads) fold(const __grid_constant__ Work<T> work) {
  const Rule& rule = work.rule;
  if (!isfinite(*rule.gradient_scale)) return;
  const Entry<T>& entry = work.table.entries[entry_of_block(work.table, &Entry<T>::first_fold)];
  const Folded folded(entry);
  const Fold& fold = folded.fold;
  const T* const sums = folded.of_rows ? entry.row_sums : entry.column_sums;

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::int64_t at = folded.begin + (fold.shares() ? lane : static_cast<int>(threadIdx.x));
  double sum = 0;
  if (at < fold.length) {
#pragma unroll 4
    for (std::int64_t tile = fold.shares() ? warp : 0; tile < fold.tiles;
         tile += fold.shares() ? kWarps : 1)
      sum += sums[tile * fold.length + at];
  }
  if (fold.shares()) {
    __shared__ double shared[kWarps][32];
    shared[warp][lane] = sum;
    __syncthreads();
    if (warp != 0) return;
    for (int w = 1; w < kWarps; ++w) sum += shared[w][lane];
  }
  if (at >= fold.length) return;
  if (entry.part_sums && folded.of_rows == (entry.axis == 1))
    entry.part_sums[at] = sum;
  else
    move_mean((folded.of_rows ? entry.row_mean : entry.column_mean)[at], sum,
              folded.of_rows ? entry.columns : entry.rows, rule);
}

// One block per width of a fold again, for those whose sums processes have added up.
template <class T>
__global__ void __launch_bounds__(kThreads) settle(const __grid_constant__ Work<T> work) {
  const Rule& rule = work.rule;
  if (!isfinite(*rule.gradient_scale)) return;
  const Entry<T>& entry = work.table.entries[entry_of_block(work.table, &Entry<T>::first_fold)];
  const Folded folded(entry);
  if (!entry.part_sums || folded.of_rows != (entry.axis == 1)) return;
  const std::int64_t at = folded.begin + threadIdx.x;
  if (threadIdx.x >= folded.fold.width() || at >= folded.fold.length) return;
  T* const means = folded.of_rows ? entry.row_mean : entry.column_mean;
  move_mean(means[at], entry.part_sums[at], entry.whole(folded.of_rows ? 1 : 0), rule);
}

// The sum of values[0, count), by all threads of a wide block.
template <class T>
__device__ double wide_sum(const T* values, std::int64_t count) {
  double sum = 0;
#pragma unroll 8
  for (std::int64_t i = threadIdx.x; i < count; i += kWideThreads) sum += values[i];
  return block_sum<kWideThreads>(sum);
}

// One block per entry.
template <class T>
__global__ void __launch_bounds__(kWideThreads) average(const __grid_constant__ Work<T> work) {
  if (!isfinite(*work.rule.gradient_scale)) return;
  const Entry<T>& entry = work.table.entries[blockIdx.x];
  if (!entry.row_mean) return;
  const double sum = wide_sum(entry.row_mean, entry.rows);
  if (threadIdx.x != 0) return;
  // What all processes have, each hands in a part of.
  const int share = entry.axis == 0 ? 1 : work.rule.processes;
  work.rule.row_mean_means[blockIdx.x] = sum / static_cast<double>(entry.whole(0) * share);
}

template <class T>
__device__ __forceinline__ void set_pace(const Rule& rule, const Entry<T>& entry, double x_squares,
                                         double update_squares) {
  const auto size = static_cast<double>(entry.rows * entry.columns * entry.parts);
  const double excess = sqrt(update_squares / size) / rule.clip_threshold;
  const double relative = entry.relative ? max(rule.min_scale, sqrt(x_squares / size)) : 1;
  rule.paces[blockIdx.x] = entry.learning_rate / max(1.0, excess) * relative;
}

// One block per entry: sets its pace, or leaves its sums to be added up.
template <class T>
__global__ void __launch_bounds__(kWideThreads) pace(const __grid_constant__ Work<T> work) {
  const Rule& rule = work.rule;
  if (!isfinite(*rule.gradient_scale)) return;
  const Entry<T>& entry = work.table.entries[blockIdx.x];
  const std::int64_t tiles = entry.tile_count();
  const double update_squares = wide_sum(rule.update_squares + entry.first_tile, tiles);
  const double x_squares = wide_sum(rule.x_squares + entry.first_tile, tiles);
  if (threadIdx.x != 0) return;
  if (!rule.squares) return set_pace(rule, entry, x_squares, update_squares);
  const double share = entry.parts > 1 ? 1 : rule.processes;
  rule.squares[2 * blockIdx.x] = x_squares / share;
  rule.squares[2 * blockIdx.x + 1] = update_squares / share;
}

// One thread per entry.
template <class T>
__global__ void __launch_bounds__(1) pace_of_parts(const __grid_constant__ Work<T> work) {
  if (!isfinite(*work.rule.gradient_scale)) return;
  const double* const squares = work.rule.squares + 2 * blockIdx.x;
  set_pace(work.rule, work.table.entries[blockIdx.x], squares[0], squares[1]);
}

}  // namespace infini::adafactor
