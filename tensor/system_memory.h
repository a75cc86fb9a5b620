// What the caching allocator and tensors ask of a device's system: blocks of memory, zeros and
// copies.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/device.h"

namespace infini {

// Zeros and copies are done in the order in which they and the kernels of the device were asked
// for; the call may return before.
class SystemMemory {
 public:
  // A block aligned to 64 bytes or more, or null when the device has none left.
  virtual std::byte* allocate(std::int64_t bytes) const = 0;
  virtual void release(std::byte* block, std::int64_t bytes) const = 0;
  virtual void fill_zero(std::byte* block, std::int64_t bytes) const = 0;
  // Between this device and the CPU, or within either.
  virtual void copy(std::byte* to, const std::byte* from, std::int64_t bytes) const = 0;

  // Bytes that lie in rows, `pitch` bytes from one row to the next.
  struct Strip {
    std::byte* begin;
    std::int64_t pitch;
  };
  virtual void fill_zero(const Strip& to, std::int64_t row_bytes, std::int64_t rows) const = 0;
  virtual void copy(const Strip& to, const Strip& from, std::int64_t row_bytes,
                    std::int64_t rows) const = 0;

  virtual void synchronize() const = 0;

 protected:
  ~SystemMemory() = default;
};

// Throws DeviceError where this build has no such device or the machine shows none.
const SystemMemory& system_memory(Device device);

// Waits until everything asked of the device is done.
inline void synchronize(Device device) { system_memory(device).synchronize(); }

// From one device to another. What comes to the CPU is there when the call returns.
inline void copy_bytes(std::byte* to, Device to_device, const std::byte* from, Device from_device,
                       std::int64_t bytes) {
  system_memory(to_device == Device::kCpu ? from_device : to_device).copy(to, from, bytes);
  if (to_device == Device::kCpu) synchronize(from_device);
}
inline void copy_bytes(const SystemMemory::Strip& to, Device to_device,
                       const SystemMemory::Strip& from, Device from_device, std::int64_t row_bytes,
                       std::int64_t rows) {
  system_memory(to_device == Device::kCpu ? from_device : to_device)
      .copy(to, from, row_bytes, rows);
  if (to_device == Device::kCpu) synchronize(from_device);
}

// Whether tensors can live on the device here.
bool is_available(Device device);
// How many of the kind there are here, and which of them this process uses: the first until another
// is chosen, which must be before it is used.
int device_count(Device device);
void choose_device(Device device, int index);

}  // namespace infini
