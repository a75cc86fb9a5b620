// Tiles of attention in shared memory, and where heads lie in the packed projections.
//
// A block of kSide x kSide threads holds tiles of rows: tokens of a head. Thread (x, y) owns rows
// y, y + kSide, ... of a tile and, of a result as wide as a head, packs of columns at 4 x, 4 x +
// 64, ... Sums are taken in fp32 (fp64 for fp64) in an order that depends on shapes alone.
#pragma once

#include <algorithm>

#include "tensor/ops/cuda_math.cuh"

namespace infini {

constexpr int kSide = 16, kThreads = kSide * kSide;

// The height of tiles of which a block holds `tiles`: two blocks fit on a multiprocessor.
template <class A, int kWidth, int tiles>
constexpr int kTileRows = std::clamp<int>(65536 / (tiles * kWidth * int{sizeof(A)}), kSide, 64);

// Where the heads of all segments lie. Head h of segment s begins at row s * tokens.
template <class N>
struct PackedHeads {
  using A = Compute<N>;
  const N *rotated, *qkv;
  int tokens, heads, kv_heads, width, first_query;
  A scale;

  __device__ std::int64_t rotated_leading() const { return std::int64_t{heads + kv_heads} * width; }
  __device__ std::int64_t qkv_leading() const { return rotated_leading() + kv_heads * width; }
  __device__ std::int64_t y_leading() const { return std::int64_t{heads} * width; }
  __device__ int kv_head(int head) const { return head / (heads / kv_heads); }

  // Offsets of the first token: in rotated, which drotated shares, and in qkv, which dqkv shares.
  __device__ std::int64_t query(int segment, int head) const {
    return std::int64_t{segment} * tokens * rotated_leading() + head * width;
  }
  __device__ std::int64_t key(int segment, int head) const { return query(segment, heads + head); }
  __device__ std::int64_t value(int segment, int head) const {
    return std::int64_t{segment} * tokens * qkv_leading() + (heads + kv_heads + head) * width;
  }
  __device__ std::int64_t y(int segment, int head) const {
    return std::int64_t{segment} * (tokens - first_query) * y_leading() + head * width;
  }
  // In log_sum and in the row sums D.
  __device__ std::int64_t row(int segment, int head) const {
    return (std::int64_t{segment} * heads + head) * tokens;
  }
};

// Tiles in shared memory. Rows are kStride apart, so that threads of different rows use different
// banks.
template <class A, int kWidth, int kTall>
struct AttentionTile {
  static constexpr int kStride = kWidth + 4, kSize = kTall * kStride;
  static constexpr int kEach = kTall / kSide;      // rows of a thread
  static constexpr int kColumns = kWidth / kSide;  // columns of a thread
  using Square = A[kEach][kEach];
  using Wide = A[kEach][kColumns];

  // Rows from `first` on; zeros beyond `rows` rows and `width` columns.
  template <class N>
  static __device__ void load(A* tile, const N* from, std::int64_t leading, int first, int rows,
                              int width) {
    for (int i = threadIdx.x; i < kTall * kWidth; i += kThreads) {
      const int r = i / kWidth, c = i % kWidth;
      const bool inside = first + r < rows && c < width;
      tile[r * kStride + c] = inside ? A(from[(first + r) * leading + c]) : A(0);
    }
  }

  // result[i][j] = (row y + kSide i of a) . (row x + kSide j of b)
  static __device__ void dots(const A* a, const A* b, Square& result) {
    const int x = threadIdx.x % kSide, y = threadIdx.x / kSide;
#pragma unroll
    for (int i = 0; i < kEach; ++i)
#pragma unroll
      for (int j = 0; j < kEach; ++j) result[i][j] = 0;
#pragma unroll 2
    for (int c = 0; c < kWidth; c += 4) {
      A left[kEach][4], right[kEach][4];
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        load_pack<4>(a + (y + kSide * i) * kStride + c, left[i]);
        load_pack<4>(b + (x + kSide * i) * kStride + c, right[i]);
      }
#pragma unroll
      for (int i = 0; i < kEach; ++i)
#pragma unroll
        for (int j = 0; j < kEach; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) result[i][j] += left[i][e] * right[j][e];
    }
  }

  // Scores of a tile, handed from the threads that computed them to all.
  static constexpr int kSquareSize = kTall * (kTall + 1);
  static __device__ void share(const Square& values, A* square) {
    const int x = threadIdx.x % kSide, y = threadIdx.x / kSide;
#pragma unroll
    for (int i = 0; i < kEach; ++i)
#pragma unroll
      for (int j = 0; j < kEach; ++j)
        square[(y + kSide * i) * (kTall + 1) + x + kSide * j] = values[i][j];
  }

  // sum += square tile
  static __device__ void add_product(const A* square, const A* tile, Wide& sum) {
    const int x = threadIdx.x % kSide, y = threadIdx.x / kSide;
#pragma unroll 4
    for (int k = 0; k < kTall; ++k) {
      A weight[kEach];
#pragma unroll
      for (int i = 0; i < kEach; ++i) weight[i] = square[(y + kSide * i) * (kTall + 1) + k];
#pragma unroll
      for (int block = 0; block < kColumns / 4; ++block) {
        A values[4];
        load_pack<4>(tile + k * kStride + 4 * kSide * block + 4 * x, values);
#pragma unroll
        for (int i = 0; i < kEach; ++i)
#pragma unroll
          for (int e = 0; e < 4; ++e) sum[i][4 * block + e] += weight[i] * values[e];
      }
    }
  }

  template <class N>
  static __device__ void store(const Wide& sum, N* to, std::int64_t leading, int first, int rows,
                               int width, bool accumulate) {
    const int x = threadIdx.x % kSide, y = threadIdx.x / kSide;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int row = first + y + kSide * i;
      if (row >= rows) continue;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int column = 4 * kSide * (c / 4) + 4 * x + c % 4;
        if (column >= width) continue;
        N& element = to[row * leading + column];
        element = N(accumulate ? A(element) + sum[i][c] : sum[i][c]);
      }
    }
  }
};

// Over the threads that own parts of the same rows.
template <class A>
__device__ A row_sum(A value) {
  for (int distance = kSide / 2; distance; distance /= 2)
    value += __shfl_xor_sync(0xffffffff, value, distance);
  return value;
}
template <class A>
__device__ A row_max(A value) {
  for (int distance = kSide / 2; distance; distance /= 2)
    value = max(value, __shfl_xor_sync(0xffffffff, value, distance));
  return value;
}

}  // namespace infini
