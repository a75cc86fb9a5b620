// What the caching allocator and tensors ask of a device's system: blocks of memory, zeros and
// copies.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/device.h"

namespace infini {

class SystemMemory {
 public:
  // A block aligned to 64 bytes or more, or null when the device has none left.
  virtual std::byte* allocate(std::int64_t bytes) const = 0;
  virtual void release(std::byte* block, std::int64_t bytes) const = 0;
  virtual void fill_zero(std::byte* block, std::int64_t bytes) const = 0;
  // Between this device and the CPU, or within either.
  virtual void copy(std::byte* to, const std::byte* from, std::int64_t bytes) const = 0;

 protected:
  ~SystemMemory() = default;
};

// Throws DeviceError where this build has no such device or the machine shows none.
const SystemMemory& system_memory(Device device);

// From one device to another.
inline void copy_bytes(std::byte* to, Device to_device, const std::byte* from, Device from_device,
                       std::int64_t bytes) {
  system_memory(to_device == Device::kCpu ? from_device : to_device).copy(to, from, bytes);
}

// Whether tensors can live on the device here.
bool is_available(Device device);

}  // namespace infini
