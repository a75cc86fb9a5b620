#include "tensor/allocator.h"

#include <sys/mman.h>

#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

namespace infini {
namespace {

constexpr std::int64_t kSmallestBytes = 256;
constexpr std::int64_t kMappedBytes = 4 << 20;  // from here on whole pages are mapped, huge ones where the system has them

// Blocks come in sizes of eight steps to the octave: at most an eighth is wasted, and a size that
// returns finds its block again.
std::int64_t rounded(std::int64_t bytes) {
  if (bytes <= kSmallestBytes) return kSmallestBytes;
  const auto octave = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(bytes - 1)));
  const std::int64_t step = std::max(octave / 8, std::int64_t{64});
  return (bytes + step - 1) / step * step;
}

std::byte* system_allocate(std::int64_t bytes) {
  if (bytes < kMappedBytes) return static_cast<std::byte*>(std::aligned_alloc(64, bytes));
  void* block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) return nullptr;
  madvise(block, bytes, MADV_HUGEPAGE);
  return static_cast<std::byte*>(block);
}

void system_release(std::byte* block, std::int64_t bytes) {
  if (bytes < kMappedBytes)
    std::free(block);
  else
    munmap(block, bytes);
}

class Cache {
 public:
  std::byte* take(std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    std::byte* block = nullptr;
    if (auto found = free_.find(bytes); found != free_.end() && !found->second.empty()) {
      block = found->second.back();
      found->second.pop_back();
    } else {
      block = system_allocate(bytes);
      if (!block) {
        release_free();
        block = system_allocate(bytes);
      }
      check<DeviceError>(block, "out of memory: asked for ", bytes, " bytes with ",
                         statistics_.in_use_bytes, " in use");
      ++statistics_.system_allocations;
      statistics_.reserved_bytes += bytes;
    }
    statistics_.in_use_bytes += bytes;
    statistics_.peak_bytes = std::max(statistics_.peak_bytes, statistics_.in_use_bytes);
    return block;
  }

  void give_back(std::byte* block, std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    free_[bytes].push_back(block);
    statistics_.in_use_bytes -= bytes;
  }

  MemoryStatistics statistics() {
    const std::lock_guard lock(mutex_);
    return statistics_;
  }

  void reset_peak() {
    const std::lock_guard lock(mutex_);
    statistics_.peak_bytes = statistics_.in_use_bytes;
  }

  void release() {
    const std::lock_guard lock(mutex_);
    release_free();
  }

 private:
  void release_free() {
    for (auto& [bytes, blocks] : free_) {
      for (std::byte* block : blocks) system_release(block, bytes);
      statistics_.reserved_bytes -= bytes * static_cast<std::int64_t>(blocks.size());
      blocks.clear();
    }
  }

  std::mutex mutex_;
  std::map<std::int64_t, std::vector<std::byte*>> free_;
  MemoryStatistics statistics_;
};

// Never destroyed: tensors with static storage may outlive any order of destruction.
Cache& cache(Device device) {
  check<DeviceError>(device == Device::kCpu, "this build has no memory on ", device);
  static Cache& cpu = *new Cache;
  return cpu;
}

}  // namespace

MemoryStatistics memory_statistics(Device device) { return cache(device).statistics(); }
void reset_peak(Device device) { cache(device).reset_peak(); }
void release_cached(Device device) { cache(device).release(); }

std::shared_ptr<std::byte> allocate(std::int64_t bytes, Device device) {
  const std::int64_t size = rounded(bytes);
  Cache& owner = cache(device);
  return {owner.take(size), [&owner, size](std::byte* block) { owner.give_back(block, size); }};
}

}  // namespace infini
