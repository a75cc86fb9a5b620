// Instructions of Hopper that the decoding kernel needs: bulk copies into shared memory, barriers
// there, stores into the shared memory of other blocks, accesses that all blocks see without a
// fence.
#pragma once

#include <cstddef>

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/instructions.cuh"

namespace infini {

// Waits for `threads` threads of the block at barrier `id`; 0 is that of __syncthreads.
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// A barrier in shared memory opens its phase after `arrivals` arrivals and all bytes expected.
__device__ __forceinline__ void init_barrier(std::uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
               : "memory");
}
// Makes barriers known to the copy engine.
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void arrive(std::uint64_t* barrier) {
  asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(
                   shared_address(barrier))
               : "memory");
}
// Arrives, and makes the phase last until so many bytes were copied.
__device__ __forceinline__ void expect_bytes(std::uint64_t* barrier, int bytes) {
  asm volatile(
      "{\n.reg .b64 state;\nmbarrier.arrive.expect_tx.shared.b64 state, [%0], %1;\n}" ::"r"(
          shared_address(barrier)),
      "r"(bytes)
      : "memory");
}
// Whether the phase of this parity is over; may wait a little to see it.
__device__ __forceinline__ bool has_passed(std::uint64_t* barrier, unsigned parity) {
  unsigned passed;
  asm volatile(
      "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(passed)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return passed != 0;
}

// Where the block of that rank in the cluster has what lies at `address` here.
__device__ __forceinline__ std::uint32_t address_in(std::uint32_t address, int rank) {
  std::uint32_t result;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(result) : "r"(address), "r"(rank));
  return result;
}
// Stores 16 bytes in the block that address_in() named; the barrier there counts them.
__device__ __forceinline__ void store_async(std::uint32_t to, uint4 words, std::uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(to),
      "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w), "r"(barrier)
      : "memory");
}
// All threads of the cluster arrive, then wait for each other.
__device__ __forceinline__ void arrive_in_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void wait_for_cluster() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Lines copied under this policy are the first to make room in the L2 cache.
__device__ __forceinline__ std::uint64_t read_once() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// Copies multiples of 16 bytes to shared memory; the barrier counts them.
__device__ __forceinline__ void copy_bulk(void* shared, const void* global, int bytes,
                                          std::uint64_t* barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
}

// Copies 16 bytes to shared memory by this thread.
__device__ __forceinline__ void copy_pack(void* shared, const void* global, std::uint64_t policy) {
  asm volatile(
      "cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
      "l"(global), "l"(policy)
      : "memory");
}
// Arrives once all that this thread copied so has come.
__device__ __forceinline__ void arrive_after_packs(std::uint64_t* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(barrier))
               : "memory");
}

// Accesses to words that other blocks read and write meanwhile: each is whole, none waits.
__device__ __forceinline__ uint4 load_relaxed(const uint4* from) {
  uint4 w;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(w.x), "=r"(w.y), "=r"(w.z), "=r"(w.w)
               : "l"(from));
  return w;
}
__device__ __forceinline__ int load_relaxed(const int* from) {
  int word;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(word) : "l"(from));
  return word;
}
template <class Word>
__device__ __forceinline__ void store_relaxed(Word* to, Word word) {
  static_assert(sizeof(Word) == 4);
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(word) : "memory");
}

// Of all numbers handed in, whoever comes first, the greatest stays.
__device__ __forceinline__ void keep_greatest(std::uint64_t* number, std::uint64_t other) {
  atomicMax(reinterpret_cast<unsigned long long*>(number), other);
}

__device__ __forceinline__ std::uint64_t nanoseconds() {
  std::uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

}  // namespace infini
