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

namespace {
int attribute(cudaDeviceAttr name) {
  int device = 0, found = 0;
  cuda_check(cudaGetDevice(&device), "cudaGetDevice");
  cuda_check(cudaDeviceGetAttribute(&found, name, device), "cudaDeviceGetAttribute");
  return found;
}
}  // namespace

int multiprocessor_count() {
  static const int count = attribute(cudaDevAttrMultiProcessorCount);
  return count;
}

ComputeCapability compute_capability() {
  static const ComputeCapability found{attribute(cudaDevAttrComputeCapabilityMajor),
                                       attribute(cudaDevAttrComputeCapabilityMinor)};
  return found;
}

bool is_hopper() {
  return compute_capability().major == 9 && compute_capability().minor == 0;
}

}  // namespace infini

#endif  // INFINI_CUDA
