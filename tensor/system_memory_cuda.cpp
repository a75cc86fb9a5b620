// Memory of the current CUDA device. Copies and zeros are in order with the default stream and done
// when the call returns.
#ifdef INFINI_CUDA

#include <cuda_runtime_api.h>

#include "tensor/system_memory.h"

namespace infini {
namespace {

void cuda_check(cudaError_t status, const char* who) {
  check<DeviceError>(status == cudaSuccess, who, ": ", cudaGetErrorString(status));
}

class CudaMemory final : public SystemMemory {
 public:
  std::byte* allocate(std::int64_t bytes) const override {
    void* block = nullptr;
    const cudaError_t status = cudaMalloc(&block, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // the error is answered for; the next call must not find it
      return nullptr;
    }
    cuda_check(status, "cudaMalloc");
    return static_cast<std::byte*>(block);
  }
  // Unchecked: at the end of the process the driver may be gone before the last block is.
  void release(std::byte* block, std::int64_t) const override { cudaFree(block); }
  void fill_zero(std::byte* block, std::int64_t bytes) const override {
    cuda_check(cudaMemset(block, 0, bytes), "cudaMemset");
  }
  void copy(std::byte* to, const std::byte* from, std::int64_t bytes) const override {
    cuda_check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "cudaMemcpy");
  }
};

}  // namespace

const SystemMemory* cuda_memory() {
  static const CudaMemory memory;
  static const bool usable = [] {
    int count = 0;
    const bool found = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
    cudaGetLastError();
    return found;
  }();
  return usable ? &memory : nullptr;
}

}  // namespace infini

#endif  // INFINI_CUDA
