// The two products of the tiles of memory_tiles.cuh that tensor cores do, and what is made of the
// results where they are.
#pragma once

#include "tensor/ops/memory_tiles.cuh"

namespace infini {

// How a block shares the product of a tile of tokens with a matrix: warps of kRowTiles x 16 rows
// and 32 columns. A lane has rows row(m, half), and of each the 8 neighbouring columns from
// column() on.
template <int K>
struct Working {
  static constexpr int kAcross = K / 32, kRowTiles = kTileTokens * kAcross / 8 / 16;

  static __device__ __forceinline__ int across() { return threadIdx.x / 32 % kAcross; }
  static __device__ __forceinline__ int first_row() {
    return threadIdx.x / 32 / kAcross * 16 * kRowTiles;
  }
  static __device__ __forceinline__ int row(int m, int half) {
    return first_row() + m * 16 + half * 8 + threadIdx.x % 32 / 4;
  }
  static __device__ __forceinline__ int column() { return across() * 32 + threadIdx.x % 4 * 8; }

  // The threads that share a column number it so.
  static constexpr int kRowsOfColumn = kTileThreads / 4 / kAcross;
  static __device__ __forceinline__ int row_of_column() {
    return threadIdx.x / 32 / kAcross * 8 + threadIdx.x % 32 / 4;
  }
};

// What stands where the results of a lane go, asked for before they are known.
template <int K>
struct Standing {
  uint4 raw[Working<K>::kRowTiles][2];

  __device__ __forceinline__ void load(const TokenRows& rows, int first_token, int tokens) {
#pragma unroll
    for (int m = 0; m < Working<K>::kRowTiles; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        raw[m][half] = *reinterpret_cast<const uint4*>(
            rows.at(min(first_token + Working<K>::row(m, half), tokens - 1)));
  }
  __device__ __forceinline__ void add_to(int m, int half, float (&values)[8]) const {
    float stood[8];
    unpack(raw[m][half], stood);
#pragma unroll
    for (int c = 0; c < 8; ++c) values[c] += stood[c];
  }
};

// The product of rows with a matrix: with its transpose, or with the matrix itself. A spread matrix
// has column 8 (j / 2) + 2 n + j % 2 of every 32 in place 8 n + j.
enum class Times { kTransposed, kSpread, kSpreadTransposed };

// sums = x matrix or x matrix^T: sums[m][half] are the 8 numbers of a lane in row(m, half). The
// columns of the result that an instruction numbers 8 n + j are those of a spread matrix, by which
// the two that a lane has of each n are neighbours of those of the next.
template <int K, Times times>
__device__ __forceinline__ void multiply(const TokenTile<K>& x, const MatrixTile<K>& matrix,
                                         float (&sums)[Working<K>::kRowTiles][2][8]) {
  using W = Working<K>;
  const int lane = threadIdx.x % 32, j = lane % 8;
  const int matrix_row = W::across() * 32 + j / 2 * 8 + lane / 16 * 2 + j % 2;
  float products[W::kRowTiles][4][4] = {};
  std::uint32_t rows[W::kRowTiles][2][4];  // of the spread columns, for two steps
#pragma unroll
  for (int k = 0; k < K / 16; ++k) {
    std::uint32_t b[2][4];
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      if constexpr (times == Times::kSpread)
        load_matrices<true>(&matrix.at(k * 16 + lane % 16, W::across() * 4 + pair * 2 + lane / 16),
                            b[pair]);
      else
        load_matrices<false>(&matrix.at(matrix_row + pair * 4, 2 * k + lane / 8 % 2), b[pair]);
    }
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m) {
      std::uint32_t a[4];
      if constexpr (times == Times::kSpreadTransposed) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (k % 2 == 0) {
            const uint4 chunk = x.at(W::row(m, half), k * 2 + lane % 4);
            rows[m][half][0] = chunk.x;
            rows[m][half][1] = chunk.y;
            rows[m][half][2] = chunk.z;
            rows[m][half][3] = chunk.w;
          }
          a[half] = rows[m][half][k % 2 * 2];
          a[half + 2] = rows[m][half][k % 2 * 2 + 1];
        }
      } else {
        load_matrices<false>(&x.at(W::first_row() + m * 16 + lane % 16, 2 * k + lane / 16), a);
      }
#pragma unroll
      for (int n = 0; n < 4; ++n)
        multiply_add(products[m][n], a, b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
    }
  }
#pragma unroll
  for (int m = 0; m < W::kRowTiles; ++m)
#pragma unroll
    for (int i = 0; i < 16; ++i) sums[m][i / 2 % 2][i / 4 * 2 + i % 2] = products[m][i / 4][i % 4];
}

// How a block shares a sum over tokens [K, K]: warps of K / 2 rows and K / 4 columns, where a lane
// has the numbers of `multiply_add`.
template <int K>
struct Summing {
  static constexpr int kTiles = K / 32;
  float sums[kTiles][kTiles][4] = {};

  using Numbers = float[kTiles * kTiles * 4];
  __device__ __forceinline__ Numbers& numbers() { return reinterpret_cast<Numbers&>(sums); }

  static __device__ __forceinline__ int first_row() { return threadIdx.x / 128 * (K / 2); }
  static __device__ __forceinline__ int first_column() { return threadIdx.x / 32 % 4 * (K / 4); }

  // sums += x^T y.
  __device__ __forceinline__ void add(const TokenTile<K>& x, const TokenTile<K>& y) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < kTileTokens / 16; ++k) {
      std::uint32_t b[kTiles / 2][4];
#pragma unroll
      for (int pair = 0; pair < kTiles / 2; ++pair)
        load_matrices<true>(
            &y.at(k * 16 + lane / 8 % 2 * 8 + lane % 8, first_column() / 8 + pair * 2 + lane / 16),
            b[pair]);
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        std::uint32_t a[4];
        load_matrices<true>(
            &x.at(k * 16 + lane / 16 * 8 + lane % 8, first_row() / 8 + m * 2 + lane / 8 % 2), a);
#pragma unroll
        for (int n = 0; n < kTiles; ++n)
          multiply_add(sums[m][n], a, b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
      }
    }
  }

  __device__ __forceinline__ void store(float* matrix, bool accumulate) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < kTiles; ++m)
#pragma unroll
      for (int n = 0; n < kTiles; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = first_row() + m * 16 + half * 8 + lane / 4;
          const int column = first_column() + n * 8 + lane % 4 * 2;
          auto* to = reinterpret_cast<float2*>(matrix + row * K + column);
          const float2 stood = accumulate ? *to : float2{0, 0};
          *to = {stood.x + sums[m][n][2 * half], stood.y + sums[m][n][2 * half + 1]};
        }
  }
};

// The part of the gradients of recall and overlap that goes token by token; mapped_tokens.cuh has
// the formulas. W lies as `multiply` leaves it.
template <int K>
struct TokenGradTile {
  using W = Working<K>;
  float w[W::kRowTiles][2][8];

  // partial[across][row] = the share of a warp in d = sigma(x) . W; returns this thread's.
  __device__ __forceinline__ float dots(const TokenTile<K>& mapped,
                                        float (&partial)[W::kAcross][kTileTokens]) const {
    float total = 0;
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float x[8];
        unpack(mapped.at(W::row(m, half), W::column() / 8), x);
        float d = dot(x, w[m][half]);
        total += d;
        d += __shfl_xor_sync(0xffffffff, d, 1);
        d += __shfl_xor_sync(0xffffffff, d, 2);
        if (threadIdx.x % 4 == 0) partial[W::across()][W::row(m, half)] = d;
      }
    return total;
  }

  // With e = -share d factor, where factor is 1 / denominator or 0 where that was clamped:
  //   dx = (W + e z) sigma'(x), handed to put(m, half, dx),   dz += e sigma(x).
  template <class Put>
  __device__ __forceinline__ void finish(const TokenTile<K>& mapped,
                                         const float (&partial)[W::kAcross][kTileTokens],
                                         const float* factor, float share, const float* z,
                                         float (&dz)[8], Put put) {
    float z_chunk[8];
    load_pack<8>(z + W::column(), z_chunk);
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = W::row(m, half);
        float x[8], e = 0;
        unpack(mapped.at(row, W::column() / 8), x);
#pragma unroll
        for (int warp = 0; warp < W::kAcross; ++warp) e += partial[warp][row];
        e *= -share * factor[row];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          dz[i] += e * x[i];
          x[i] = (w[m][half][i] + e * z_chunk[i]) * sigma_slope(x[i]);
        }
        put(m, half, x);
      }
  }
};

// The sums over rows of values, column threadIdx.x of K in each of the first threads, where each
// thread has 8 columns of one of `rows` rows. Every thread must call it; `scratch` holds [rows, K].
template <int K, int rows>
__device__ __forceinline__ float sum_columns(const float (&values)[8], int row, int column,
                                             float* scratch) {
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 8; ++i) scratch[row * K + column + i] = values[i];
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int r = 0; r < rows; ++r) sum += threadIdx.x < K ? scratch[r * K + threadIdx.x] : 0;
  return sum;
}

}  // namespace infini
