// What CUDA code shares: one stream, and errors in words.
#pragma once

#include <cuda_runtime_api.h>

#include "tensor/error.h"
#include "tensor/profile.h"

namespace infini {

// All work on the device runs on this stream, in the order of the calls that asked for it.
cudaStream_t cuda_stream();

// Of the current device.
int multiprocessor_count();
struct ComputeCapability {
  int major = 0, minor = 0;
};
ComputeCapability compute_capability();
// Capability 9.0: what is compiled for sm_90a runs there alone.
bool is_hopper();

inline void cuda_check(cudaError_t status, const char* who) {
  check<DeviceError>(status == cudaSuccess, who, ": ", cudaGetErrorString(status));
}
// After the launch of a kernel.
inline void check_launch(const char* who) {
  cuda_check(cudaGetLastError(), who);
  if (is_profiling()) mark_work(who);
}

}  // namespace infini
