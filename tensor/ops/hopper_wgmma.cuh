// Products of a warpgroup on Hopper's tensor cores (wgmma), whose right factor, and whose left one
// if it is not in registers, lie in shared memory as the copy engine leaves tiles there.
//
// A tile of r rows of K bf16 is K / 64 chunks [r, 64], one after the other. Rows of a chunk are 128
// bytes, and within 8 rows the 16-byte piece p of row i stands at p ^ i % 8 ("128-byte swizzle").
// Every tile starts at a multiple of 1024 bytes, and so does every eighth row.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "tensor/ops/instructions.cuh"

namespace infini::hopper {

constexpr int kChunk = 64;             // columns
constexpr int kRowBytes = 2 * kChunk;  // of a row of a chunk
constexpr int kWarpgroup = 128;        // threads
constexpr std::uint64_t kSwizzled = std::uint64_t{1} << 62;

// How the tensor cores find the numbers of a tile. Addresses and distances are in units of 16
// bytes. Its rows are the rows of a left factor or the columns of a right one: sums run along its
// rows.
template <int rows>
struct AlongRows {
  std::uint64_t descriptor;

  __device__ __forceinline__ explicit AlongRows(const void* tile, int first_row = 0)
      : descriptor(kSwizzled | std::uint64_t{8 * kRowBytes / 16} << 32 | std::uint64_t{1} << 16 |
                   (shared_address(tile) + first_row * kRowBytes) / 16) {}
  // 16 columns from 16 s on.
  __device__ __forceinline__ std::uint64_t step(int s) const {
    return descriptor + s / 4 * (rows * kRowBytes / 16) + s % 4 * 2;
  }
};
// Its rows are the rows of a right factor: sums run down its columns.
template <int rows>
struct DownColumns {
  std::uint64_t descriptor;

  __device__ __forceinline__ explicit DownColumns(const void* tile)
      : descriptor(kSwizzled | std::uint64_t{8 * kRowBytes / 16} << 32 |
                   std::uint64_t{rows * kRowBytes / 16} << 16 | shared_address(tile) / 16) {}
  // 16 rows from 16 s on.
  __device__ __forceinline__ std::uint64_t step(int s) const {
    return descriptor + s * (16 * kRowBytes / 16);
  }
};

// Thread t of a warpgroup, lane l of its warp w, holds of a matrix of 64 rows
//   as sums                        (16 w + l / 4 + 8 h, 8 j + 2 (l % 4) + e) at 4 j + 2 h + e,
//   as a left factor of 16 columns (16 w + l / 4 + 8 h, 8 j + 2 (l % 4) + e) in half e of word
//                                  2 j + h, j < 2,
// so that sums rounded to bf16 are a left factor where they stand.
using LeftFactor = std::uint32_t[4];

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// clang-format off
#define INFINI_32 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define INFINI_64 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define INFINI_8(as, i) \
  as(sums[i]), as(sums[i + 1]), as(sums[i + 2]), as(sums[i + 3]), \
  as(sums[i + 4]), as(sums[i + 5]), as(sums[i + 6]), as(sums[i + 7])
#define INFINI_SUMS32(as) INFINI_8(as, 0), INFINI_8(as, 8), INFINI_8(as, 16), INFINI_8(as, 24)
#define INFINI_SUMS64(as) INFINI_SUMS32(as), \
  INFINI_8(as, 32), INFINI_8(as, 40), INFINI_8(as, 48), INFINI_8(as, 56)
#define INFINI_WGMMA(n, keep, registers, operands) \
  "{.reg .pred keeps; setp.ne.b32 keeps, " keep ", 0;\n" \
  "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 " registers ", " operands ";}"
// clang-format on

// sums = a b, or sums += a b with kAdds: a [64, 16], b [16, 64 or 128]. Sums that do not count yet
// are outputs alone: the compiler may not find them written before, while products are under way.
template <bool kAdds>
__device__ __forceinline__ void wgmma(float (&sums)[32], std::uint64_t a, std::uint64_t b) {
  if constexpr (kAdds)
    asm volatile(INFINI_WGMMA("64", "1", INFINI_32, "%32, %33, keeps, 1, 1, 0, 0")
                 : INFINI_SUMS32("+f")
                 : "l"(a), "l"(b));
  else
    asm volatile(INFINI_WGMMA("64", "0", INFINI_32, "%32, %33, keeps, 1, 1, 0, 0")
                 : INFINI_SUMS32("=f")
                 : "l"(a), "l"(b));
}
// The left factor in registers, sums along the rows of b's tile.
template <bool kAdds>
__device__ __forceinline__ void wgmma(float (&sums)[32], const LeftFactor& a, std::uint64_t b) {
  if constexpr (kAdds)
    asm volatile(INFINI_WGMMA("64", "1", INFINI_32, "{%32, %33, %34, %35}, %36, keeps, 1, 1, 0")
                 : INFINI_SUMS32("+f")
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  else
    asm volatile(INFINI_WGMMA("64", "0", INFINI_32, "{%32, %33, %34, %35}, %36, keeps, 1, 1, 0")
                 : INFINI_SUMS32("=f")
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
// The same, sums down the columns of b's tile.
__device__ __forceinline__ void wgmma_down(float (&sums)[32], const LeftFactor& a,
                                           std::uint64_t b) {
  asm volatile(INFINI_WGMMA("64", "1", INFINI_32, "{%32, %33, %34, %35}, %36, keeps, 1, 1, 1")
               : INFINI_SUMS32("+f")
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void wgmma_down(float (&sums)[64], const LeftFactor& a,
                                           std::uint64_t b) {
  asm volatile(INFINI_WGMMA("128", "1", INFINI_64, "{%64, %65, %66, %67}, %68, keeps, 1, 1, 1")
               : INFINI_SUMS64("+f")
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// Both factors in shared memory, sums down the columns of both tiles: sums += a^T b.
__device__ __forceinline__ void wgmma_down(float (&sums)[32], std::uint64_t a, std::uint64_t b) {
  asm volatile(INFINI_WGMMA("64", "1", INFINI_32, "%32, %33, keeps, 1, 1, 1, 1")
               : INFINI_SUMS32("+f")
               : "l"(a), "l"(b));
}
__device__ __forceinline__ void wgmma_down(float (&sums)[64], std::uint64_t a, std::uint64_t b) {
  asm volatile(INFINI_WGMMA("128", "1", INFINI_64, "%64, %65, keeps, 1, 1, 1, 1")
               : INFINI_SUMS64("+f")
               : "l"(a), "l"(b));
}

#undef INFINI_32
#undef INFINI_64
#undef INFINI_8
#undef INFINI_SUMS32
#undef INFINI_SUMS64
#undef INFINI_WGMMA

// Before products whose registers were written by other instructions.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// Ends a group of products.
__device__ __forceinline__ void wgmma_group() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until no more than `left` groups are under way.
template <int left>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
}
// Keeps the compiler from moving uses of `sums` across this point: products write them later than
// their instructions stand.
template <int n>
__device__ __forceinline__ void settle(float (&sums)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// sums = a b^T as a group: a, in shared memory or in registers, and b are 64 rows of K.
template <int kWidth, int n, class Left>
__device__ __forceinline__ void multiply(float (&sums)[n], const Left& a,
                                         const AlongRows<n * 2>& b) {
  const auto left = [&](int s) -> decltype(auto) {
    if constexpr (std::is_array_v<Left>)
      return (a[s]);
    else
      return a.step(s);
  };
  wgmma_fence();
  wgmma<false>(sums, left(0), b.step(0));
#pragma unroll
  for (int s = 1; s < kWidth / 16; ++s) wgmma<true>(sums, left(s), b.step(s));
  wgmma_group();
}
// sums += a b as a group: a [64, rows] in registers, b [rows, K].
template <int n, int rows>
__device__ __forceinline__ void multiply_add(float (&sums)[n], const LeftFactor (&a)[rows / 16],
                                             const DownColumns<rows>& b) {
  wgmma_fence();
#pragma unroll
  for (int s = 0; s < rows / 16; ++s) wgmma_down(sums, a[s], b.step(s));
  wgmma_group();
}

// sums += a^T b as a group: a [rows, 64] and b [rows, K].
template <int n, int rows>
__device__ __forceinline__ void multiply_add(float (&sums)[n], const DownColumns<rows>& a,
                                             const DownColumns<rows>& b) {
  wgmma_fence();
#pragma unroll
  for (int s = 0; s < rows / 16; ++s) wgmma_down(sums, a.step(s), b.step(s));
  wgmma_group();
}

#endif

// Sums as the left factor of a product over their columns.
template <int n>
__device__ __forceinline__ void round_sums(const float (&sums)[n], LeftFactor (&factor)[n / 8]) {
#pragma unroll
  for (int s = 0; s < n / 8; ++s)
#pragma unroll
    for (int word = 0; word < 4; ++word)
      factor[s][word] = pack_bf16(sums[8 * s + 2 * word], sums[8 * s + 2 * word + 1]);
}

}  // namespace infini::hopper
