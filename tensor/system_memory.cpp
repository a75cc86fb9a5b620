#include "tensor/system_memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

namespace infini {

// Of system_memory_cuda.cpp. Null on a machine without a usable GPU.
const SystemMemory* cuda_system_memory();
int cuda_device_count();
void cuda_choose_device(int index);

namespace {

constexpr std::int64_t kMappedBytes =
    4 << 20;  // from here on whole pages are mapped, huge ones where the system has them

class CpuMemory final : public SystemMemory {
 public:
  std::byte* allocate(std::int64_t bytes) const override {
    if (bytes < kMappedBytes) return static_cast<std::byte*>(std::aligned_alloc(64, bytes));
    void* block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) return nullptr;
    madvise(block, bytes, MADV_HUGEPAGE);
    return static_cast<std::byte*>(block);
  }
  void release(std::byte* block, std::int64_t bytes) const override {
    if (bytes < kMappedBytes)
      std::free(block);
    else
      munmap(block, bytes);
  }
  void fill_zero(std::byte* block, std::int64_t bytes) const override {
    std::memset(block, 0, bytes);
  }
  void copy(std::byte* to, const std::byte* from, std::int64_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
  void fill_zero(const Strip& to, std::int64_t row_bytes, std::int64_t rows) const override {
    for (std::int64_t r = 0; r < rows; ++r) std::memset(to.begin + r * to.pitch, 0, row_bytes);
  }
  void copy(const Strip& to, const Strip& from, std::int64_t row_bytes,
            std::int64_t rows) const override {
    for (std::int64_t r = 0; r < rows; ++r)
      std::memcpy(to.begin + r * to.pitch, from.begin + r * from.pitch, row_bytes);
  }
  void synchronize() const override {}
};

}  // namespace

const SystemMemory& system_memory(Device device) {
  static const CpuMemory cpu;
  if (device == Device::kCpu) return cpu;
#ifdef INFINI_CUDA
  const SystemMemory* const cuda = cuda_system_memory();
  check<DeviceError>(cuda != nullptr, "this machine has no GPU that CUDA can use");
  return *cuda;
#else
  throw DeviceError(text("this build has no memory on ", device));
#endif
}

int device_count(Device device) {
#ifdef INFINI_CUDA
  if (device == Device::kCuda) return cuda_device_count();
#endif
  return device == Device::kCpu ? 1 : 0;
}

void choose_device(Device device, int index) {
  check<DeviceError>(index >= 0 && index < device_count(device), "there is no ", device, " ", index,
                     " here, but ", device_count(device));
#ifdef INFINI_CUDA
  if (device == Device::kCuda) cuda_choose_device(index);
#endif
}

bool is_available(Device device) {
#ifdef INFINI_CUDA
  return device == Device::kCpu || cuda_system_memory() != nullptr;
#else
  return device == Device::kCpu;
#endif
}

}  // namespace infini
