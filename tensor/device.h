// Where a tensor lives and who computes on it.
#pragma once

#include <cstdint>
#include <ostream>

#include "tensor/error.h"

namespace infini {

enum class Device : std::uint8_t { kCpu, kCuda };

inline std::ostream& operator<<(std::ostream& out, Device device) {
  return out << (device == Device::kCpu ? "cpu" : "cuda");
}

// The kernels of a family on `device`: on<cpu_norm, cuda_norm>(device). An op names an object for
// the CPU and the function that returns the one for CUDA.
template <const auto& cpu, const auto& cuda>
auto on(Device device) -> decltype(cuda()) {
#ifdef INFINI_CUDA
  if (device == Device::kCuda) return cuda();
#endif
  check<DeviceError>(device == Device::kCpu, "this build has no kernels for ", device);
  return cpu;
}

}  // namespace infini
