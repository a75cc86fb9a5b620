// Instructions that CUDA C++ has no names for: asynchronous copies, and the tensor cores as every
// device from Ampere on has them.
#pragma once

#include <cstdint>

namespace infini {

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies 4, 8 or 16 bytes to shared memory, zeros when not valid, without waiting for them.
template <int bytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid) {
  if constexpr (bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)),
                 "l"(global), "n"(bytes), "r"(valid ? bytes : 0)
                 : "memory");
}
// Ends a group of copies of this thread.
__device__ __forceinline__ void copy_async_group() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until no more than `left` groups of this thread are under way.
template <int left>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

// Asks for the cache line of `global` to be brought near.
__device__ __forceinline__ void prefetch_line(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
}

// Four 8 x 8 matrices of bf16 from shared memory. Lane 8 m + r names row r of matrix m, 16 bytes;
// fragments[m] of a lane is then row lane / 4, columns 2 (lane % 4) and the next, of the matrix or
// of its transpose.
template <bool kTransposed>
__device__ __forceinline__ void load_matrices(const void* row, std::uint32_t (&fragments)[4]) {
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
                 : "r"(shared_address(row))
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// sums [16, 8] += a [16, 16] b [16, 8]. With g = lane / 4 and c = 2 (lane % 4), a lane holds
//   a     (g, c), (g + 8, c), (g, c + 8), (g + 8, c + 8), each with its right neighbour
//   b     (c, g), (c + 8, g), each with its lower neighbour
//   sums  (g, c), (g, c + 1), (g + 8, c), (g + 8, c + 1)
__device__ __forceinline__ void multiply_add(float (&sums)[4], const std::uint32_t (&a)[4],
                                             std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace infini
