// Memory of the current CUDA device.
#ifdef INFINI_CUDA

#include "tensor/cuda.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

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
    cuda_check(cudaMemsetAsync(block, 0, bytes, cuda_stream()), "cudaMemset");
    mark_work("zeros");
  }
  void copy(std::byte* to, const std::byte* from, std::int64_t bytes) const override {
    cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, cuda_stream()), "cudaMemcpy");
    mark_work("copy");
  }
  void fill_zero(const Strip& to, std::int64_t row_bytes, std::int64_t rows) const override {
    cuda_check(cudaMemset2DAsync(to.begin, to.pitch, 0, row_bytes, rows, cuda_stream()),
               "cudaMemset2D");
    mark_work("zeros");
  }
  void copy(const Strip& to, const Strip& from, std::int64_t row_bytes,
            std::int64_t rows) const override {
    cuda_check(cudaMemcpy2DAsync(to.begin, to.pitch, from.begin, from.pitch, row_bytes, rows,
                                 cudaMemcpyDefault, cuda_stream()),
               "cudaMemcpy2D");
    mark_work("copy");
  }
  void synchronize() const override {
    cuda_check(cudaStreamSynchronize(cuda_stream()), "work on the GPU");
  }
};

}  // namespace

int cuda_device_count() {
  static const int count = [] {
    int found = 0;
    const bool asked = cudaGetDeviceCount(&found) == cudaSuccess;
    cudaGetLastError();
    return asked ? found : 0;
  }();
  return count;
}

void cuda_choose_device(int index) { cuda_check(cudaSetDevice(index), "cudaSetDevice"); }

const SystemMemory* cuda_system_memory() {
  static const CudaMemory memory;
  return cuda_device_count() > 0 ? &memory : nullptr;
}

}  // namespace infini

#endif  // INFINI_CUDA
