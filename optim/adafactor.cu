// A step reads every gradient three times and keeps nothing of the size of a parameter:
//   measure  sums of squares: over rows and columns of tiles of factored matrices, of parameters,
//            and of updates that are not factored, whose mean squares it moves
//   fold     sums over tiles: the running means of rows and columns
//   average  the mean of the row means of each matrix
//   square   sums of squares of the updates that are factored
//   pace     what each parameter multiplies its update by
//   apply    the update, recomputed
// Where processes have parts of parameters, what fold, average and pace find here is added up over
// them; settle and pace_of_parts go on from there.
// Sums are taken in the type of the parameter over what a thread meets in a tile, in fp64 over the
// tiles, in an order that depends on the shapes alone.
#include <cmath>

#include "optim/adafactor.h"
#include "optim/adafactor_sums.cuh"

namespace infini {
namespace {

using namespace adafactor;

template <class T>
struct Squares {
  T x = 0, update = 0;
};

template <int n, class T>
__device__ __forceinline__ void add_squares(const T* from, T& sum) {
  T values[n];
  stream_in(from, values);
#pragma unroll
  for (int k = 0; k < n; ++k) sum += values[k] * values[k];
}

template <int n, class T>
__device__ __forceinline__ Squares<T> measure_tile(const Entry<T>& entry, T scale,
                                                   T (&shared)[kWarps][kTileColumns]) {
  const Tile tile = tile_of(entry, blockIdx.x);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  T column_sums[kPacks<n>][n] = {};
  Squares<T> squares;
  for (std::int64_t row = tile.row + warp; row < tile.row_end; row += kWarps) {
    T row_sum = 0;
    visit_row<n>(entry, tile, row, [&](std::int64_t i, int p) {
      T g[n];
      load_pack(entry.gradient + i, g);
#pragma unroll
      for (int k = 0; k < n; ++k) {
        const T scaled = scale * g[k];
        row_sum += scaled * scaled;
        column_sums[p][k] += scaled * scaled;
      }
      if (entry.relative) add_squares<n>(entry.x + i, squares.x);
    });
    row_sum = warp_sum(row_sum);
    if (lane == 0) entry.row_sums[tile.column_index * entry.rows + row] = row_sum;
  }

#pragma unroll
  for (int p = 0; p < kPacks<n>; ++p)
    store_pack(&shared[warp][n * (32 * p + lane)], column_sums[p]);
  __syncthreads();
  for (int c = threadIdx.x; c < kTileColumns && tile.column + c < entry.columns; c += kThreads) {
    T sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += shared[w][c];
    entry.column_sums[tile.row_index * entry.columns + tile.column + c] = sum;
  }
  return squares;
}

// Moves the running squares V and measures U = G / sqrt(V).
template <int n, class T>
__device__ __forceinline__ Squares<T> measure_piece(const Entry<T>& entry, const Rule& rule,
                                                    T scale) {
  const T keep = static_cast<T>(rule.keep), fresh = static_cast<T>(1 - rule.keep);
  const T epsilon = static_cast<T>(rule.epsilon);
  Squares<T> squares;
  visit_piece<n>(entry, blockIdx.x, 0, 1, [&](std::int64_t i) {
    T g[n], square[n];
    stream_in(entry.gradient + i, g);
    stream_in(entry.square + i, square);
#pragma unroll
    for (int k = 0; k < n; ++k) {
      const T scaled = scale * g[k];
      square[k] = keep * square[k] + fresh * (scaled * scaled + epsilon);
      const T update = scaled / sqrt(square[k]);
      squares.update += update * update;
    }
    stream_out(entry.square + i, square);
    if (entry.relative) add_squares<n>(entry.x + i, squares.x);
  });
  return squares;
}

// One block per tile.
template <class T>
__global__ void __launch_bounds__(kThreads) measure(const __grid_constant__ Work<T> work) {
  alignas(16) __shared__ T shared[kWarps][kTileColumns];
  const Rule& rule = work.rule;
  if (!isfinite(*rule.gradient_scale)) return;
  const T scale = static_cast<T>(*rule.gradient_scale);
  const Entry<T>& entry = work.table.entries[entry_of_block(work.table, &Entry<T>::first_tile)];
  constexpr int n = kPackSize<T>;
  Squares<T> squares;
  if (entry.row_mean)
    squares = entry.packed ? measure_tile<n>(entry, scale, shared)
                           : measure_tile<1>(entry, scale, shared);
  else
    squares =
        entry.packed ? measure_piece<n>(entry, rule, scale) : measure_piece<1>(entry, rule, scale);
  const double x = block_sum<kThreads>(static_cast<double>(squares.x));
  const double update = block_sum<kThreads>(static_cast<double>(squares.update));
  if (threadIdx.x != 0) return;
  rule.x_squares[blockIdx.x] = x;
  if (!entry.row_mean) rule.update_squares[blockIdx.x] = update;
}

template <int n, class T>
__device__ __forceinline__ T square_tile(const Entry<T>& entry, const Tile& tile, T scale, T mean) {
  const Factors<n, T> factors(entry, tile, scale, mean);
  T sum = 0;
  for (std::int64_t row = tile.row + threadIdx.x / 32; row < tile.row_end; row += kWarps) {
    const T row_factor = factors.row(entry, row);
    visit_row<n>(entry, tile, row, [&](std::int64_t i, int p) {
      T u[n];
      load_pack(entry.gradient + i, u);
      factors.turn(row_factor, p, u);
#pragma unroll
      for (int k = 0; k < n; ++k) sum += u[k] * u[k];
    });
  }
  return sum;
}

// One block per tile; those of parameters that are not factored are measured already. The last
// tile comes first: what was measured last is still in the L2 cache, and so is for apply() what is
// read last here.
template <class T>
__global__ void __launch_bounds__(kThreads) square(const __grid_constant__ Work<T> work) {
  const Rule& rule = work.rule;
  if (!isfinite(*rule.gradient_scale)) return;
  const unsigned block = gridDim.x - 1 - blockIdx.x;
  const int index = entry_of_block(work.table, &Entry<T>::first_tile, block);
  const Entry<T>& entry = work.table.entries[index];
  if (!entry.row_mean) return;
  const Tile tile = tile_of(entry, block);
  const T scale = static_cast<T>(*rule.gradient_scale);
  const T mean = static_cast<T>(rule.row_mean_means[index]);
  const T sum = entry.packed ? square_tile<kPackSize<T>>(entry, tile, scale, mean)
                             : square_tile<1>(entry, tile, scale, mean);
  const double total = block_sum<kThreads>(static_cast<double>(sum));
  if (threadIdx.x == 0) rule.update_squares[block] = total;
}

// Half of the packs of a row at a time, so that registers do for three blocks of a multiprocessor.
template <int n, int begin, int end, class T>
__device__ __forceinline__ void apply_packs(const Entry<T>& entry, const Tile& tile,
                                            std::int64_t row, const Factors<n, T>& factors,
                                            T row_factor, const Motion<T>& motion) {
  Moving<n, T> moving[end - begin];
  visit_row<n, begin, end>(entry, tile, row, [&](std::int64_t i, int p) {
    stream_in(entry.gradient + i, moving[p - begin].u);
    factors.turn(row_factor, p, moving[p - begin].u);
    moving[p - begin].read(entry, i);
  });
  visit_row<n, begin, end>(
      entry, tile, row, [&](std::int64_t i, int p) { moving[p - begin].write(entry, motion, i); });
}

template <int n, class T>
__device__ __forceinline__ void apply_tile(const Entry<T>& entry, const Motion<T>& motion, T scale,
                                           T mean) {
  constexpr std::int64_t kRows = kTileRows / kParts;
  Tile tile = tile_of(entry, blockIdx.x / kParts);
  tile.row += blockIdx.x % kParts * kRows;
  tile.row_end = min(tile.row_end, tile.row + kRows);
  const Factors<n, T> factors(entry, tile, scale, mean);
  for (std::int64_t row = tile.row + threadIdx.x / 32; row < tile.row_end; row += kWarps) {
    const T row_factor = factors.row(entry, row);
    apply_packs<n, 0, kPacks<n> / 2>(entry, tile, row, factors, row_factor, motion);
    apply_packs<n, kPacks<n> / 2, kPacks<n>>(entry, tile, row, factors, row_factor, motion);
  }
}

template <int n, class T>
__device__ __forceinline__ void apply_piece(const Entry<T>& entry, const Motion<T>& motion,
                                            T scale) {
  visit_piece<n>(entry, blockIdx.x / kParts, blockIdx.x % kParts, kParts, [&](std::int64_t i) {
    Moving<n, T> moving;
    T square[n];
    stream_in(entry.gradient + i, moving.u);
    stream_in(entry.square + i, square);
    moving.read(entry, i);
#pragma unroll
    for (int k = 0; k < n; ++k) moving.u[k] = scale * moving.u[k] / sqrt(square[k]);
    moving.write(entry, motion, i);
  });
}

// One block per part of a tile.
template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 ? 3 : 1)
    apply(const __grid_constant__ Work<T> work) {
  const Rule& rule = work.rule;
  if (!isfinite(*rule.gradient_scale)) return;
  const int index = entry_of_block(work.table, &Entry<T>::first_tile, blockIdx.x / kParts);
  const Entry<T>& entry = work.table.entries[index];
  const T scale = static_cast<T>(*rule.gradient_scale);
  const double pace = rule.paces[index];
  const Motion<T> motion{.pace = static_cast<T>(pace),
                         .keep = static_cast<T>(rule.momentum),
                         .fresh = static_cast<T>((1 - rule.momentum) * pace),
                         .decay = static_cast<T>(entry.learning_rate * entry.weight_decay)};
  constexpr int n = kPackSize<T>;
  if (entry.row_mean) {
    const T mean = static_cast<T>(rule.row_mean_means[index]);
    if (entry.packed)
      apply_tile<n>(entry, motion, scale, mean);
    else
      apply_tile<1>(entry, motion, scale, mean);
  } else {
    if (entry.packed)
      apply_piece<n>(entry, motion, scale);
    else
      apply_piece<1>(entry, motion, scale);
  }
}

template <class T>
Entry<T> entry_of(const AdafactorKernels::Update& update) {
  constexpr int n = kPackSize<T>;
  const bool factored = static_cast<bool>(update.row_mean);
  const Shape& shape = update.parameter.shape();
  Entry<T> entry{.x = native<T>(update.parameter),
                 .gradient = native<T>(update.gradient),
                 .momentum = native<T>(update.momentum),
                 .square = native<T>(update.square),
                 .row_mean = native<T>(update.row_mean),
                 .column_mean = native<T>(update.column_mean),
                 .value = native<BFloat16>(update.value),
                 .rows = factored ? shape[0] : 1,
                 .columns = factored ? shape[1] : shape.size(),
                 .learning_rate = update.learning_rate,
                 .weight_decay = update.weight_decay,
                 .parts = update.division.count,
                 .axis = update.division.is_part() ? update.division.axis : -1,
                 .relative = update.relative};
  entry.packed = entry.columns % n == 0 && holds_packs<n>(entry.x) &&
                 holds_packs<n>(entry.gradient) && holds_packs<n>(entry.momentum) &&
                 holds_packs<n>(entry.square) && holds_packs<n>(entry.column_mean) &&
                 holds_packs<n>(entry.value);
  return entry;
}

template <class T>
void launch(const AdafactorKernels::Step& step, std::span<const AdafactorKernels::Update> updates) {
  Work<T> work;
  Table<Entry<T>>& table = work.table;
  std::int64_t tiles = 0, folds = 0, sums = 0, part_sums = 0;
  for (const AdafactorKernels::Update& update : updates) {
    if (update.parameter.size() == 0) continue;
    Entry<T>& entry = table.entries[table.count++] = entry_of<T>(update);
    entry.first_tile = static_cast<unsigned>(tiles);
    entry.first_fold = static_cast<unsigned>(folds);
    tiles += entry.tile_count();
    folds += entry.fold_count();
    sums += entry.row_sum_count() + entry.column_sum_count();
    part_sums += entry.part_sum_count();
  }
  if (table.count == 0) return;

  const Tensor partial = Tensor::empty({sums}, dtype_of<T>(), Device::kCuda);
  const Tensor totals =
      Tensor::empty(Shape{2 * (tiles + table.count)}, DType::kFloat64, Device::kCuda);
  const TensorGroup* const group = step.group;
  const Tensor shared_sums = Tensor::empty({part_sums}, DType::kFloat64, Device::kCuda);
  const Tensor shared_squares =
      Tensor::empty(Shape{group ? 2 * table.count : 0}, DType::kFloat64, Device::kCuda);
  T* free_sums = partial.data<T>();
  double* free_part_sums = shared_sums.data<double>();
  for (int i = 0; i < table.count; ++i) {
    Entry<T>& entry = table.entries[i];
    entry.row_sums = free_sums;
    entry.column_sums = entry.row_sums + entry.row_sum_count();
    free_sums = entry.column_sums + entry.column_sum_count();
    if (entry.part_sum_count() > 0) entry.part_sums = free_part_sums;
    free_part_sums += entry.part_sum_count();
  }
  double* const total = totals.data<double>();
  work.rule = {.gradient_scale = step.gradient_scale.data<double>(),
               .keep = step.keep,
               .epsilon = step.config.epsilon_squared,
               .clip_threshold = step.config.clip_threshold,
               .min_scale = step.config.min_scale,
               .momentum = step.config.momentum,
               .x_squares = total,
               .update_squares = total + tiles,
               .row_mean_means = total + 2 * tiles,
               .paces = total + 2 * tiles + table.count,
               .squares = group ? shared_squares.data<double>() : nullptr,
               .processes = group ? group->count() : 1};
  const auto sum_over_parts = [&](const Tensor& values) {
    if (!group || values.size() == 0) return;
    group->sum(values);
    group->wait();
  };

  const cudaStream_t stream = cuda_stream();
  const auto tile_blocks = static_cast<unsigned>(tiles);
  measure<<<tile_blocks, kThreads, 0, stream>>>(work);
  check_launch("adafactor measure");
  if (folds > 0) {
    fold<<<static_cast<unsigned>(folds), kThreads, 0, stream>>>(work);
    check_launch("adafactor fold");
    if (part_sums > 0) {
      sum_over_parts(shared_sums);
      settle<<<static_cast<unsigned>(folds), kThreads, 0, stream>>>(work);
      check_launch("adafactor settle");
    }
    average<<<table.count, kWideThreads, 0, stream>>>(work);
    check_launch("adafactor average");
    sum_over_parts(totals.slice(2 * tiles, table.count));
    square<<<tile_blocks, kThreads, 0, stream>>>(work);
    check_launch("adafactor square");
  }
  pace<<<table.count, kWideThreads, 0, stream>>>(work);
  check_launch("adafactor pace");
  if (group) {
    sum_over_parts(shared_squares);
    pace_of_parts<<<table.count, 1, 0, stream>>>(work);
    check_launch("adafactor pace_of_parts");
  }
  apply<<<kParts * tile_blocks, kThreads, 0, stream>>>(work);
  check_launch("adafactor apply");
}

class CudaAdafactor final : public AdafactorKernels {
 public:
  void update(const Step& step) const override {
    dispatch_accumulator(step.updates.front().parameter.dtype(), [&]<class T>() {
      for_each_table<Entry<T>>(step.updates, [&](auto updates) { launch<T>(step, updates); });
    });
  }
};

}  // namespace

const AdafactorKernels& cuda_adafactor() {
  static const CudaAdafactor kernels;
  return kernels;
}

}  // namespace infini
