// What the kernels of adafactor.cu share: how they divide their work, and the update itself.
#pragma once

#include "optim/table.cuh"

namespace infini::adafactor {

constexpr int kThreads = 256, kWarps = kThreads / 32;
// A tile is what a block works on: of a factored matrix, warps take rows and lanes columns; of any
// other parameter, kPiece elements.
constexpr std::int64_t kTileRows = 128;
constexpr int kTileColumns = 512;
constexpr int kParts = 4;  // blocks that share a tile where nothing is summed over it
constexpr std::int64_t kPiece = 16384;
constexpr std::int64_t kFewTiles = 8;
constexpr int kWideThreads = 1024;  // of blocks that look after a whole parameter

__host__ __device__ constexpr std::int64_t ceil_div(std::int64_t count, std::int64_t each) {
  return (count + each - 1) / each;
}

// The rows of a matrix, or its columns, each with a sum from every tile that it passes through:
// warps share the tiles of 32 of them where these are many, otherwise a thread has them all.
struct Fold {
  std::int64_t length, tiles;

  __host__ __device__ bool shares() const { return tiles > kFewTiles; }
  __host__ __device__ std::int64_t width() const { return shares() ? 32 : kThreads; }  // of a block
  __host__ __device__ std::int64_t blocks() const { return ceil_div(length, width()); }
};

template <class T>
struct Entry {
  T* x = nullptr;
  const T* gradient = nullptr;
  T* momentum = nullptr;                          // or null
  T* square = nullptr;                            // null when factored
  T *row_mean = nullptr, *column_mean = nullptr;  // null unless factored
  __nv_bfloat16* value = nullptr;                 // or null
  T* row_sums = nullptr;                          // [column tiles, rows]: over columns of a tile
  T* column_sums = nullptr;                       // [row tiles, columns]: over rows of a tile
  std::int64_t rows = 0, columns = 0;             // one row unless factored
  double learning_rate = 0, weight_decay = 0;
  unsigned first_tile = 0, first_fold = 0;
  // Of a part of what processes divide: how many there are, along which axis, and the sums over
  // that axis here, then of all: of columns where rows are divided, of rows where columns are.
  int parts = 1, axis = -1;
  double* part_sums = nullptr;
  bool relative = false;
  bool packed = false;  // all pointers and the columns allow accesses of kPackSize elements

  __host__ __device__ std::int64_t tile_count() const {
    return row_mean ? ceil_div(rows, kTileRows) * ceil_div(columns, kTileColumns)
                    : ceil_div(columns, kPiece);
  }
  std::int64_t row_sum_count() const {
    return row_mean ? ceil_div(columns, kTileColumns) * rows : 0;
  }
  std::int64_t column_sum_count() const {
    return row_mean ? ceil_div(rows, kTileRows) * columns : 0;
  }
  __host__ __device__ Fold row_fold() const {
    return {.length = rows, .tiles = ceil_div(columns, kTileColumns)};
  }
  __host__ __device__ Fold column_fold() const {
    return {.length = columns, .tiles = ceil_div(rows, kTileRows)};
  }
  std::int64_t part_sum_count() const {
    return row_mean && parts > 1 ? (axis == 0 ? columns : rows) : 0;
  }
  // Elements along an axis, of all parts.
  __device__ __forceinline__ std::int64_t whole(int along) const {
    return (along == 0 ? rows : columns) * (axis == along ? parts : 1);
  }
  std::int64_t fold_count() const {
    return row_mean ? row_fold().blocks() + column_fold().blocks() : 0;
  }
};

struct Rule {
  const double* gradient_scale;
  double keep, epsilon, clip_threshold, min_scale, momentum;
  double *x_squares, *update_squares;  // [tiles]
  double *row_mean_means, *paces;      // [entries]
  // Where processes share parameters, else null: sums of squares of x and of updates [entries, 2].
  double* squares;
  int processes;  // that do
};

// What kernels take.
template <class T>
struct Work {
  Table<Entry<T>> table;
  Rule rule;
};

struct Tile {
  std::int64_t row, row_end, column;
  std::int64_t row_index, column_index;  // in tiles
};
// Tile number `tile` of the table's.
template <class T>
__device__ __forceinline__ Tile tile_of(const Entry<T>& entry, unsigned tile) {
  const unsigned index = tile - entry.first_tile;
  const auto across = static_cast<unsigned>(ceil_div(entry.columns, kTileColumns));
  const std::int64_t row_index = index / across, column_index = index % across;
  return {.row = row_index * kTileRows,
          .row_end = min(entry.rows, (row_index + 1) * kTileRows),
          .column = column_index * kTileColumns,
          .row_index = row_index,
          .column_index = column_index};
}

// Packs of n columns that a lane reads of a row of a tile.
template <int n>
constexpr int kPacks = kTileColumns / (32 * n);

// Calls visit(i, p) for each pack of n columns in `tile` that this lane reads of `row`, the p-th of
// `begin` to `end`: its first element is i.
template <int n, int begin = 0, int end = kPacks<n>, class T, class Visit>
__device__ __forceinline__ void visit_row(const Entry<T>& entry, const Tile& tile, std::int64_t row,
                                          Visit&& visit) {
  const std::int64_t first = tile.column + n * (threadIdx.x % 32);
#pragma unroll
  for (int p = begin; p < end; ++p) {
    const std::int64_t column = first + 32 * n * p;
    if (column < entry.columns) visit(row * entry.columns + column, p);
  }
}

// Calls visit(i) for each pack of n elements of part `part` of `parts` of a tile of a parameter
// that is not factored.
template <int n, class T, class Visit>
__device__ __forceinline__ void visit_piece(const Entry<T>& entry, unsigned tile, int part,
                                            int parts, Visit&& visit) {
  const std::int64_t begin = kPiece * (tile - entry.first_tile) + kPiece / parts * part;
  const std::int64_t end = min(entry.columns, begin + kPiece / parts);
  for (std::int64_t i = begin + n * threadIdx.x; i < end; i += n * kThreads) visit(i);
}

// Updates U[r, c] = G[r, c] row_factor column_factor[c] of the columns of one lane.
template <int n, class T>
struct Factors {
  T column[kPacks<n>][n];
  T scale, mean;

  __device__ __forceinline__ Factors(const Entry<T>& entry, const Tile& tile, T gradient_scale,
                                     T row_mean_mean)
      : scale(gradient_scale), mean(row_mean_mean) {
    visit_row<n>(entry, tile, 0, [&](std::int64_t c, int p) {
      load_pack(entry.column_mean + c, column[p]);
#pragma unroll
      for (int k = 0; k < n; ++k) column[p][k] = 1 / sqrt(column[p][k]);
    });
  }
  __device__ __forceinline__ T row(const Entry<T>& entry, std::int64_t r) const {
    return scale * sqrt(mean / entry.row_mean[r]);
  }
  // Turns the p-th pack of gradients into updates.
  __device__ __forceinline__ void turn(T row_factor, int p, T (&u)[n]) const {
#pragma unroll
    for (int k = 0; k < n; ++k) u[k] = u[k] * row_factor * column[p][k];
  }
};

template <class T>
struct Motion {
  T pace, keep, fresh, decay;
};

// n elements of a parameter on their way through a step. Who moves several reads them all first:
// what one writes could be what the next one reads, for all that the compiler knows.
template <int n, class T>
struct Moving {
  T u[n], x[n], momentum[n];

  // u is left to the caller.
  __device__ __forceinline__ void read(const Entry<T>& entry, std::int64_t i) {
    stream_in(entry.x + i, x);
    if (entry.momentum) stream_in(entry.momentum + i, momentum);
  }
  __device__ __forceinline__ void write(const Entry<T>& entry, const Motion<T>& motion,
                                        std::int64_t i) {
    if (entry.momentum) {
#pragma unroll
      for (int k = 0; k < n; ++k) {
        momentum[k] = motion.keep * momentum[k] + motion.fresh * u[k];
        x[k] -= momentum[k] + motion.decay * x[k];
      }
      stream_out(entry.momentum + i, momentum);
    } else {
#pragma unroll
      for (int k = 0; k < n; ++k) x[k] -= motion.pace * u[k] + motion.decay * x[k];
    }
    stream_out(entry.x + i, x);
    if (entry.value) store_value(entry.value + i, x);
  }
};

}  // namespace infini::adafactor
