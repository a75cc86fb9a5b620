// What a producer and its consumers in a block share on Hopper: barriers in shared memory, and
// copies by the copy engine that complete on them.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "tensor/ops/instructions.cuh"

namespace infini::hopper {

// Counts arrivals and bytes; a phase ends when all that it expects came.
using Barrier = std::uint64_t;

// A slot of a ring, and the parity of the phase of its barriers that its next use ends.
struct Turn {
  int slot = 0;
  unsigned parity = 0;

  template <int slots>
  __device__ __forceinline__ void advance() {
    if (++slot == slots) {
      slot = 0;
      parity ^= 1;
    }
  }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ __forceinline__ void init_barrier(Barrier& barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)),
               "r"(arrivals)
               : "memory");
}
// Makes barriers that this thread has initialised known to the copy engine.
__device__ __forceinline__ void fence_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void arrive(Barrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier))
               : "memory");
}
// Arrives, and has the phase wait for that many bytes of copies.
__device__ __forceinline__ void arrive_for(Barrier& barrier, int bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)),
      "r"(bytes)
      : "memory");
}
// Waits for the end of the phase of that parity. Of a new barrier, the phase before the first one
// counts as ended.
__device__ __forceinline__ void wait(Barrier& barrier, unsigned parity) {
  asm volatile(
      "{.reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;}" ::"r"(shared_address(&barrier)),
      "r"(parity)
      : "memory");
}

// Bytes side by side; addresses and size are multiples of 16.
__device__ __forceinline__ void copy_bytes(void* shared, const void* global, int bytes,
                                           Barrier& barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(&barrier))
      : "memory");
}
// The box of a tensor map at these coordinates.
__device__ __forceinline__ void copy_tile(void* shared, const CUtensorMap& map, int token, int head,
                                          int segment, Barrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%2, %3, %2, %4, %5}], [%6];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(0), "r"(token), "r"(head), "r"(segment), "r"(shared_address(&barrier))
      : "memory");
}
__device__ __forceinline__ void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Registers of each thread of this warpgroup from here on.
template <int count>
__device__ __forceinline__ void keep_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

#endif

}  // namespace infini::hopper
