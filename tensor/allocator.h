// Memory of tensors: a cache over the system's allocator, so that a training step that repeats asks
// the system for nothing.
#pragma once

#include <cstdint>
#include <memory>

#include "tensor/device.h"

namespace infini {

struct MemoryStatistics {
  std::int64_t in_use_bytes = 0;        // handed out now
  std::int64_t peak_bytes = 0;          // the most handed out since the start or since reset_peak
  std::int64_t reserved_bytes = 0;      // taken from the system and not returned
  std::int64_t system_allocations = 0;  // calls to the system's allocator so far
};

MemoryStatistics memory_statistics(Device device);
void reset_peak(Device device);
// Returns every cached block that is not in use to the system.
void release_cached(Device device);

// What a block of this size takes: sizes come in eight steps to the octave, at least 256 bytes.
std::int64_t block_bytes(std::int64_t bytes);

// One block, aligned to 64 bytes or more, with undefined contents. It goes back to the cache when
// the last owner lets go. Throws OutOfMemory when the system has no more memory.
std::shared_ptr<std::byte> allocate(std::int64_t bytes, Device device);

}  // namespace infini
