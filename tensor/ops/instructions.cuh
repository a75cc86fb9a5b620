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

}  // namespace infini
