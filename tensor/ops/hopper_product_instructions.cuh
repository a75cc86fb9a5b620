// Instructions of the products for Hopper beside those of hopper_wgmma.cuh and hopper_copy.cuh:
// products 256 columns wide, copies to both blocks of a cluster, and copies out of shared memory.
#pragma once

#include "tensor/ops/hopper_copy.cuh"
#include "tensor/ops/hopper_wgmma.cuh"

namespace infini::hopper::product {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// clang-format off
#define INFINI_128 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}"
#define INFINI_8(as, i) \
  as(sums[i]), as(sums[i + 1]), as(sums[i + 2]), as(sums[i + 3]), \
  as(sums[i + 4]), as(sums[i + 5]), as(sums[i + 6]), as(sums[i + 7])
#define INFINI_32(as, i) \
  INFINI_8(as, i), INFINI_8(as, i + 8), INFINI_8(as, i + 16), INFINI_8(as, i + 24)
#define INFINI_SUMS(as) \
  INFINI_32(as, 0), INFINI_32(as, 32), INFINI_32(as, 64), INFINI_32(as, 96)
#define INFINI_WGMMA(keep) \
  "{.reg .pred keeps; setp.ne.b32 keeps, " keep ", 0;\n" \
  "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " INFINI_128 \
  ", %128, %129, keeps, 1, 1, 0, %130;}"
// clang-format on

// sums = a b, or sums += a b with kAdds: a [64, 16], b [16, 256]; sums run along the rows of b's
// tile or down its columns.
template <bool kAdds, bool kDown>
__device__ __forceinline__ void wgmma(float (&sums)[128], std::uint64_t a, std::uint64_t b) {
  if constexpr (kAdds)
    asm volatile(INFINI_WGMMA("1") : INFINI_SUMS("+f") : "l"(a), "l"(b), "n"(int{kDown}));
  else
    asm volatile(INFINI_WGMMA("0") : INFINI_SUMS("=f") : "l"(a), "l"(b), "n"(int{kDown}));
}

#undef INFINI_128
#undef INFINI_8
#undef INFINI_32
#undef INFINI_SUMS
#undef INFINI_WGMMA

// Waits for all threads of the cluster.
__device__ __forceinline__ void sync_cluster() {
  __syncwarp();
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}
// Arrives at the barrier that block `rank` of the cluster has at this place.
__device__ __forceinline__ void arrive_at(Barrier& barrier, int rank) {
  asm volatile(
      "{.reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];}" ::"r"(shared_address(&barrier)),
      "r"(rank)
      : "memory");
}

// The box of a map of chunks that begins in this row and this chunk: to this block, or to the same
// place of both blocks of a cluster, whose barriers at the place of `barrier` each count its bytes.
template <bool kToBoth>
__device__ __forceinline__ void copy_chunks(void* shared, const CUtensorMap& map, int row,
                                            int chunk, Barrier& barrier) {
  if constexpr (kToBoth)
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(shared_address(shared)),
        "l"(&map), "r"(0), "r"(row), "r"(chunk), "r"(shared_address(&barrier)),
        "h"(static_cast<unsigned short>(3))
        : "memory");
  else
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
        "[%1, {%2, %3, %4}], [%5];" ::"r"(shared_address(shared)),
        "l"(&map), "r"(0), "r"(row), "r"(chunk), "r"(shared_address(&barrier))
        : "memory");
}
// The box of a map of pieces that begins in this row and this column.
__device__ __forceinline__ void copy_piece(void* shared, const CUtensorMap& map, int row,
                                           int column, Barrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%2, %3}], [%4];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(column), "r"(row), "r"(shared_address(&barrier))
      : "memory");
}
// The same out of shared memory; rows beyond the last one are left out.
__device__ __forceinline__ void write_piece(const CUtensorMap& map, int row, int column,
                                            const void* shared) {
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(
          &map),
      "r"(column), "r"(row), "r"(shared_address(shared))
      : "memory");
}
// Ends a group of writes of this thread.
__device__ __forceinline__ void write_group() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// Waits until no more than `left` groups of this thread still read shared memory.
template <int left>
__device__ __forceinline__ void write_wait() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(left) : "memory");
}
// Shows what this thread has put in shared memory to the copy engine.
__device__ __forceinline__ void fence_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Four 8 x 8 matrices of bf16 into shared memory, as load_matrices<false> reads them.
__device__ __forceinline__ void store_matrices(void* row, const std::uint32_t (&fragments)[4]) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
      "r"(fragments[0]), "r"(fragments[1]), "r"(fragments[2]), "r"(fragments[3])
      : "memory");
}

#endif

}  // namespace infini::hopper::product
