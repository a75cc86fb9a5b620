// What the fast kernels of the memory share: tiles of 64 tokens and of whole matrices in shared
// memory. Operands are bf16, sums fp32; a block has 256 threads; heads are K = 64 or 128 wide.
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
__device__ __forceinline__ __nv_bfloat162 as_pair(std::uint32_t word) {
  return *reinterpret_cast<const __nv_bfloat162*>(&word);
}
__device__ __forceinline__ std::uint32_t as_word(__nv_bfloat162 pair) {
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
__device__ __forceinline__ float low_half(std::uint32_t word) {
  return __uint_as_float(word << 16);
}
__device__ __forceinline__ float high_half(std::uint32_t word) {
  return __uint_as_float(word & 0xffff0000);
}

// sigma of two, exp(min(x, 0)) + max(x, 0): one of the terms is exact, so the sum is rounded once.
__device__ __forceinline__ std::uint32_t map_pair(std::uint32_t x) {
  const __nv_bfloat162 zero = as_pair(0);
  const std::uint32_t below = as_word(__hmin2_nan(as_pair(x), zero));
  const __nv_bfloat162 exponentials =
      __floats2bfloat162_rn(exp_approx(low_half(below)), exp_approx(high_half(below)));
  return as_word(__hadd2_rn(exponentials, __hmax2_nan(as_pair(x), zero)));
}

// `map` of a chunk for which only what is rounded counts.
__device__ __forceinline__ uint4 map_chunk(uint4 raw, bool valid) {
  const std::uint32_t all = valid ? 0xffffffff : 0;
  return {map_pair(raw.x) & all, map_pair(raw.y) & all, map_pair(raw.z) & all,
          map_pair(raw.w) & all};
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

}  // namespace infini
