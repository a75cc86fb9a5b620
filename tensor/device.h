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

// The kernels of `device`: on<cpu_norm>(device). An op names one object for each device it has.
template <const auto& cpu>
const auto& on(Device device) {
  check<DeviceError>(device == Device::kCpu, "this build has no kernels for ", device);
  return cpu;
}

}  // namespace infini
