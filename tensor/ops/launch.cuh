// How a kernel is started.
#pragma once

#include "tensor/cuda.h"

namespace infini {

// Starts a kernel on the stream of all work; no blocks are no work. Shared memory beyond 48 KB must
// be asked for.
template <class... Parameters, class... Arguments>
void launch(const char* who, void (*kernel)(Parameters...), dim3 blocks, int threads,
            std::size_t shared_bytes, const Arguments&... arguments) {
  if (blocks.x == 0 || blocks.y == 0) return;
  if (shared_bytes > 48 * 1024)
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared_bytes)),
               who);
  kernel<<<blocks, threads, shared_bytes, cuda_stream()>>>(arguments...);
  check_launch(who);
}

}  // namespace infini
