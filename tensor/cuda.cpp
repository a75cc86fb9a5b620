#ifdef INFINI_CUDA

#include "tensor/cuda.h"

namespace infini {

// Never destroyed: tensors with static storage may outlive any order of destruction.
cudaStream_t cuda_stream() {
  static const cudaStream_t stream = [] {
    cudaStream_t made = nullptr;
    cuda_check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "cudaStreamCreate");
    return made;
  }();
  return stream;
}

int multiprocessor_count() {
  static const int count = [] {
    int device = 0, found = 0;
    cuda_check(cudaGetDevice(&device), "cudaGetDevice");
    cuda_check(cudaDeviceGetAttribute(&found, cudaDevAttrMultiProcessorCount, device),
               "cudaDeviceGetAttribute");
    return found;
  }();
  return count;
}

}  // namespace infini

#endif  // INFINI_CUDA
