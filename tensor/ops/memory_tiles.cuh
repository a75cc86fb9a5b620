// What the fast kernels of the memory share: tiles of 64 tokens and of whole matrices in shared
// memory, and the two products of them that tensor cores do. Operands are bf16, sums fp32; a block
// has 256 threads; heads are K = 64 or 128 wide.
#pragma once

#include "tensor/ops/instructions.cuh"
#include "tensor/ops/mapped_tokens.cuh"
#include "tensor/ops/memory_runs.cuh"

namespace infini {

using Bf16 = __nv_bfloat16;

inline bool has_fast_kernels(const Tensor& qkv, const HeadLayout& layout) {
  return qkv.dtype() == DType::kBFloat16 && (layout.head_width == 64 || layout.head_width == 128);
}

// Eight neighbouring bf16 of a row, as one access moves them.
__device__ __forceinline__ void unpack(const uint4& chunk, float (&values)[8]) {
  const std::uint32_t words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = __uint_as_float(words[i] << 16);
    values[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000);
  }
}
__device__ __forceinline__ uint4 pack(const float (&values)[8]) {
  Pack<__nv_bfloat162, 4> pairs;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    pairs.elements[i] = __floats2bfloat162_rn(values[2 * i], values[2 * i + 1]);
  return *reinterpret_cast<const uint4*>(&pairs);
}
__device__ __forceinline__ void put_chunk(Bf16* to, float (&values)[8], bool accumulate) {
  if (accumulate) {
    float stood[8];
    unpack(*reinterpret_cast<const uint4*>(to), stood);
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] += stood[i];
  }
  *reinterpret_cast<uint4*>(to) = pack(values);
}

// sigma of a chunk, zeros when it is not valid. Without a branch: -inf maps to 0.
__device__ __forceinline__ void map(uint4 raw, bool valid, float (&mapped)[8]) {
  constexpr std::uint32_t kNothing = 0xff80ff80;
  raw = {valid ? raw.x : kNothing, valid ? raw.y : kNothing, valid ? raw.z : kNothing,
         valid ? raw.w : kNothing};
  unpack(raw, mapped);
#pragma unroll
  for (float& value : mapped) {
    const float exponential = exp_approx(value);
    value = value > 0 ? value + 1.0f : exponential;
  }
}
__device__ __forceinline__ float dot(const float (&a)[8], const float (&b)[8]) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += a[i] * b[i];
  return sum;
}

// Rows of K bf16 in shared memory. The chunks of a row are permuted so that 8 lanes meet 8 groups
// of banks in every way the kernels read: 8 rows in a row, 4 chunks of two tokens, and the rows
// that `multiply` takes of a matrix. Of tokens, rows 8 further are permuted alike: one address and
// a constant name both.
template <int rows, int K, bool kOfMatrix>
struct Tile {
  uint4 chunks[rows][K / 8];

  __device__ __forceinline__ uint4& at(int row, int chunk) {
    const int further = kOfMatrix ? row >> 3 : 0;
    return chunks[row][chunk ^ ((row & 1) << 2 | (((row >> 1) ^ further) & 3))];
  }
  __device__ __forceinline__ const uint4& at(int row, int chunk) const {
    return const_cast<Tile*>(this)->at(row, chunk);
  }
};
template <int K>
using TokenTile = Tile<kTileTokens, K, false>;
template <int K>
using MatrixTile = Tile<K, K, true>;

// How the threads of a block share a tile of tokens when it is loaded: each takes one chunk of
// every kRows-th row; the kLanes threads of a row are neighbours in a warp.
template <int K>
struct Loading {
  static constexpr int kLanes = K / 8, kRows = kTileThreads / kLanes, kChunks = kTileTokens / kRows;

  static __device__ __forceinline__ int chunk() { return threadIdx.x % kLanes; }
  static __device__ __forceinline__ int row(int i) { return threadIdx.x / kLanes + i * kRows; }
  static __device__ __forceinline__ float row_sum(float value) {
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2)
      value += __shfl_xor_sync(0xffffffff, value, distance);
    return value;
  }
};

// The tokens of one head of one segment, from a column on. The stride fits one multiplication.
struct TokenRows {
  char* first;  // null where the tensor is
  int stride_bytes;

  __device__ __forceinline__ TokenRows(const Heads<Bf16>& heads, int segment, int head, int column)
      : first(nullptr), stride_bytes(static_cast<int>(heads.leading * sizeof(Bf16))) {
    if (heads.first)
      first = reinterpret_cast<char*>(heads.first +
                                      std::int64_t{segment} * heads.tokens * heads.leading +
                                      head * heads.width + column);
  }
  __device__ __forceinline__ Bf16* at(int token) const {
    return reinterpret_cast<Bf16*>(first + std::int64_t{token} * stride_bytes);
  }
  // Read so that it may move before stores: no kernel writes what it reads by chunks.
  __device__ __forceinline__ uint4 chunk(int token) const {
    return __ldg(reinterpret_cast<const uint4*>(at(token)));
  }
};

// Begins to copy the chunks of this thread of a tile of tokens; `rows` begin at its chunk. Past the
// end of the tokens the last one is repeated: what is made of it is not valid.
template <int K>
__device__ __forceinline__ void copy_tile(const TokenRows& rows, int first_token, int tokens,
                                          TokenTile<K>& to) {
  using L = Loading<K>;
#pragma unroll
  for (int i = 0; i < L::kChunks; ++i)
    copy_async<16>(&to.at(L::row(i), L::chunk()), rows.at(min(first_token + L::row(i), tokens - 1)),
                   true);
}

// Which tokens of this thread count: those that are there and no padding.
template <int K>
struct Marks {
  std::uint8_t marks[Loading<K>::kChunks];
  int left;  // tokens from the first of this thread on

  __device__ __forceinline__ void load(int first_token, int tokens, const std::uint8_t* keep) {
    using L = Loading<K>;
    left = tokens - first_token - L::row(0);
#pragma unroll
    for (int i = 0; i < L::kChunks; ++i)
      marks[i] = keep ? keep[min(first_token + L::row(i), tokens - 1)] : 1;
  }
  __device__ __forceinline__ bool valid(int i) const {
    return i * Loading<K>::kRows < left && marks[i] != 0;
  }
};

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

// A state in fp32, or zeros for null, rounded to a tile, its columns spread or in order.
template <int K, bool kSpread>
__device__ __forceinline__ void load_state(const float* state, MatrixTile<K>& to) {
#pragma unroll 4
  for (int i = threadIdx.x; i < K * K / 8; i += kTileThreads) {
    const int row = i / (K / 8), chunk = i % (K / 8);
    float values[8] = {};
    if (kSpread && state) {
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        const auto pair = *reinterpret_cast<const float2*>(state + row * K + chunk / 4 * 32 +
                                                           u * 8 + chunk % 4 * 2);
        values[2 * u] = pair.x;
        values[2 * u + 1] = pair.y;
      }
    } else if (state) {
      load_pack<8>(state + i * 8, values);
    }
    to.at(row, chunk) = pack(values);
  }
}
// A state plus its transpose.
template <int K>
__device__ __forceinline__ void load_symmetric_state(const float* state, MatrixTile<K>& to) {
#pragma unroll 2
  for (int i = threadIdx.x; i < K * K / 8; i += kTileThreads) {
    const int row = i % K, chunk = i / K;
    float values[8];
    load_pack<8>(state + row * K + chunk * 8, values);
#pragma unroll
    for (int j = 0; j < 8; ++j) values[j] += state[(chunk * 8 + j) * K + row];
    to.at(row, chunk) = pack(values);
  }
}

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
