#include "tensor/allocator.h"

#include <bit>
#include <map>
#include <mutex>
#include <vector>

#include "tensor/system_memory.h"

namespace infini {
namespace {

constexpr std::int64_t kSmallestBytes = 256;

class Cache {
 public:
  explicit Cache(const SystemMemory& system) : system_(system) {}

  std::byte* take(std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    std::byte* block = nullptr;
    if (auto found = free_.find(bytes); found != free_.end() && !found->second.empty()) {
      block = found->second.back();
      found->second.pop_back();
    } else {
      block = system_.allocate(bytes);
      if (!block) {
        release_free();
        block = system_.allocate(bytes);
      }
      check<OutOfMemory>(block, "out of memory: asked for ", bytes, " bytes with ",
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
      for (std::byte* block : blocks) system_.release(block, bytes);
      statistics_.reserved_bytes -= bytes * static_cast<std::int64_t>(blocks.size());
      blocks.clear();
    }
  }

  const SystemMemory& system_;
  std::mutex mutex_;
  std::map<std::int64_t, std::vector<std::byte*>> free_;
  MemoryStatistics statistics_;
};

// Never destroyed: tensors with static storage may outlive any order of destruction.
Cache& cache(Device device) {
  if (device == Device::kCpu) {
    static Cache& cpu = *new Cache(system_memory(Device::kCpu));
    return cpu;
  }
  static Cache& cuda = *new Cache(system_memory(Device::kCuda));
  return cuda;
}

}  // namespace

// Blocks come in sizes of eight steps to the octave: at most an eighth is wasted, and a size that
// returns finds its block again.
std::int64_t block_bytes(std::int64_t bytes) {
  if (bytes <= kSmallestBytes) return kSmallestBytes;
  const auto octave =
      static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(bytes - 1)));
  const std::int64_t step = std::max(octave / 8, std::int64_t{64});
  return (bytes + step - 1) / step * step;
}

MemoryStatistics memory_statistics(Device device) { return cache(device).statistics(); }
void reset_peak(Device device) { cache(device).reset_peak(); }
void release_cached(Device device) { cache(device).release(); }

std::shared_ptr<std::byte> allocate(std::int64_t bytes, Device device) {
  const std::int64_t size = block_bytes(bytes);
  Cache& owner = cache(device);
  return {owner.take(size), [&owner, size](std::byte* block) { owner.give_back(block, size); }};
}

}  // namespace infini
