// What CUDA kernels share: element types, 16-byte accesses, sums over a block in a fixed order.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <cstring>

#include "tensor/cuda.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace infini {

// The element type of a kernel for tensors of T.
template <class T>
struct NativeOf {
  using type = T;
};
template <>
struct NativeOf<BFloat16> {
  using type = __nv_bfloat16;
};
template <class T>
using Native = typename NativeOf<T>::type;

template <class T>
Native<T>* native(const Tensor& tensor) {
  return tensor ? reinterpret_cast<Native<T>*>(tensor.data<T>()) : nullptr;
}

// The type in which kernels compute with elements of N.
template <class N>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class N>
using Compute = typename ComputeOf<N>::type;

// Two numbers in a word, the first in its lower half.
__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  std::uint32_t word;
  memcpy(&word, &pair, sizeof word);
  return word;
}

// Elements that one thread reads or writes at once; 16 bytes of them by one access.
template <class N, int n>
struct alignas(sizeof(N) * n <= 16 ? sizeof(N) * n : 16) Pack {
  N elements[n];
};
template <class N>
constexpr int kPackSize = 16 / static_cast<int>(sizeof(N));

// A pack of consecutive elements as numbers to compute with, and back.
template <int n, class N>
__device__ __forceinline__ void load_pack(const N* from, Compute<N> (&values)[n]) {
  const Pack<N, n> pack = *reinterpret_cast<const Pack<N, n>*>(from);
#pragma unroll
  for (int i = 0; i < n; ++i) values[i] = Compute<N>(pack.elements[i]);
}
template <int n, class N>
__device__ __forceinline__ void store_pack(N* to, const Compute<N> (&values)[n]) {
  Pack<N, n> pack;
#pragma unroll
  for (int i = 0; i < n; ++i) pack.elements[i] = N(values[i]);
  *reinterpret_cast<Pack<N, n>*>(to) = pack;
}

// The sum over the lanes of a warp, in all of them.
template <class A>
__device__ __forceinline__ A warp_sum(A value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffff, value, distance);
  return value;
}
template <class A>
__device__ __forceinline__ A warp_max(A value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    const A other = __shfl_xor_sync(0xffffffff, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// The sum over a block of `threads` threads, in all of them. Every thread must call it.
template <int threads, class A>
__device__ A block_sum(A value) {
  constexpr int kWarps = threads / 32;
  __shared__ A sums[kWarps];
  value = warp_sum(value);
  __syncthreads();  // an earlier call may still be read
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  A total = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) total += sums[warp];
  return total;
}

// Blocks that cover `count` with `each` per block.
inline unsigned blocks_for(std::int64_t count, std::int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

// A pack in registers as it lies in memory: element i is held[i].
template <int n, class N>
struct alignas(alignof(Pack<N, n>)) Held {
  N elements[n];

  __device__ __forceinline__ Compute<N> operator[](int i) const { return elements[i]; }
  __device__ __forceinline__ void set(const Compute<N> (&values)[n]) {
#pragma unroll
    for (int i = 0; i < n; ++i) elements[i] = N(values[i]);
  }
};
// Two bf16 to a register. Held as elements, each would get one of its own where branches meet.
template <int n>
requires(n % 2 == 0) struct alignas(alignof(Pack<__nv_bfloat16, n>)) Held<n, __nv_bfloat16> {
  unsigned words[n / 2];

  __device__ __forceinline__ float operator[](int i) const {
    return __uint_as_float(i % 2 ? words[i / 2] & 0xffff0000 : words[i / 2] << 16);
  }
  __device__ __forceinline__ void set(const float (&values)[n]) {
#pragma unroll
    for (int i = 0; i < n; i += 2) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(values[i], values[i + 1]);
      words[i / 2] = *reinterpret_cast<const unsigned*>(&pair);
    }
  }
};
template <int n, class N>
__device__ __forceinline__ Held<n, N> hold(const N* from) {
  return *reinterpret_cast<const Held<n, N>*>(from);
}

// Writes a pack, added to what is there or over it.
template <int n, class N>
__device__ __forceinline__ void put_pack(N* to, bool accumulate, const Compute<N> (&values)[n]) {
  if (!accumulate) return store_pack<n>(to, values);
  Compute<N> total[n];
  load_pack<n>(to, total);
#pragma unroll
  for (int i = 0; i < n; ++i) total[i] += values[i];
  store_pack<n>(to, total);
}

// Whether packs of n can be read at each of the pointers; null is no obstacle.
template <int n, class... N>
bool takes_packs(const N*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % alignof(Pack<N, n>) == 0) && ...);
}

// Calls launch.operator()<n>(begin, count) for the packs of [0, count) and launch.operator()<1> for
// the elements left over: all of them where no packs can be read.
template <int n, class Launch>
void by_packs(std::int64_t count, bool packed, Launch launch) {
  const std::int64_t whole = packed ? count / n * n : 0;
  if (whole > 0) launch.template operator()<n>(std::int64_t{0}, whole);
  if (whole < count) launch.template operator()<1>(whole, count - whole);
}

// The largest value in a block of `threads` threads, in all of them. Every thread must call it.
template <int threads, class A>
__device__ A block_max(A value) {
  constexpr int kWarps = threads / 32;
  __shared__ A largest[kWarps];
  value = warp_max(value);
  __syncthreads();  // an earlier call may still be read
  if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = value;
  __syncthreads();
  A result = largest[0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp)
    result = largest[warp] > result ? largest[warp] : result;
  return result;
}

// e^x within 2e-7 (1 + |x|) of its value, 1/x within 1e-7, by one special instruction each; what is
// smaller than 1e-38 is 0.
__device__ __forceinline__ float exp_approx(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x * 1.44269504088896341f));
  return result;
}
__device__ __forceinline__ float reciprocal_approx(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

}  // namespace infini
