#include "tensor/allocator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <thread>
#include <vector>

namespace infini {
namespace {

MemoryStatistics now() { return memory_statistics(Device::kCpu); }

// Sizes around the steps of the cache and around the change to whole pages.
const std::int64_t kSizes[] = {0,    1,     255,     256,           257,           1000,   4096,
                               5000, 65537, 3 << 20, (4 << 20) - 1, (4 << 20) + 1, 9 << 20};

TEST(Allocator, GivesAlignedBlocksThatHoldWhatWasAskedFor) {
  for (const std::int64_t bytes : kSizes) {
    const auto block = allocate(bytes, Device::kCpu);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block.get()) % 64, 0u) << bytes;
    if (bytes > 0) block.get()[0] = block.get()[bytes - 1] = std::byte{1};
  }
}

TEST(Allocator, HandsAReturnedBlockOutAgain) {
  const std::byte* first = allocate(12345, Device::kCpu).get();
  const auto calls = now().system_allocations;
  EXPECT_EQ(allocate(12345, Device::kCpu).get(), first);
  EXPECT_EQ(now().system_allocations, calls);
}

TEST(Allocator, AsksTheSystemForNothingWhenAPatternRepeats) {
  const auto pattern = [] {
    std::vector<std::shared_ptr<std::byte>> held;
    for (int round = 0; round < 3; ++round)
      for (const std::int64_t bytes : kSizes) {
        held.push_back(allocate(bytes + round, Device::kCpu));
        if (held.size() % 3 == 0) held.erase(held.begin());
      }
  };
  pattern();
  const MemoryStatistics before = now();
  for (int i = 0; i < 3; ++i) pattern();
  EXPECT_EQ(now().system_allocations, before.system_allocations);
  EXPECT_EQ(now().reserved_bytes, before.reserved_bytes);
  EXPECT_EQ(now().in_use_bytes, before.in_use_bytes);
}

TEST(Allocator, CountsWhatIsInUseAndTheMostThereWas) {
  const std::int64_t before = now().in_use_bytes;
  reset_peak(Device::kCpu);
  EXPECT_EQ(now().peak_bytes, before);
  {
    const auto a = allocate(1 << 20, Device::kCpu);
    EXPECT_EQ(now().in_use_bytes, before + (1 << 20));
    const auto b = allocate(1 << 20, Device::kCpu);
  }
  EXPECT_EQ(now().in_use_bytes, before);
  EXPECT_EQ(now().peak_bytes, before + (2 << 20));
  reset_peak(Device::kCpu);
  EXPECT_EQ(now().peak_bytes, before);
}

TEST(Allocator, WastesAtMostAnEighth) {
  for (std::int64_t bytes = 300; bytes < (20 << 20); bytes += bytes / 7) {
    const std::int64_t before = now().in_use_bytes;
    const auto block = allocate(bytes, Device::kCpu);
    const std::int64_t taken = now().in_use_bytes - before;
    EXPECT_GE(taken, bytes);
    EXPECT_LE(taken, bytes + bytes / 8 + 64);
  }
}

TEST(Allocator, ReturnsCachedBlocksToTheSystemOnRequest) {
  const auto held = allocate(777777, Device::kCpu);
  allocate(8 << 20, Device::kCpu);
  EXPECT_GT(now().reserved_bytes, now().in_use_bytes);
  release_cached(Device::kCpu);
  EXPECT_EQ(now().reserved_bytes, now().in_use_bytes);
  held.get()[777776] = std::byte{1};
}

TEST(Allocator, KeepsCountWithManyThreads) {
  const std::int64_t before = now().in_use_bytes;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([t] {
        for (int i = 0; i < 500; ++i) {
          const auto block = allocate(1000 + 100 * t, Device::kCpu);
          block.get()[0] = block.get()[999] = std::byte(t);
        }
      });
  }
  EXPECT_EQ(now().in_use_bytes, before);
}

TEST(Allocator, SaysHowMuchWasAskedForWhenThereIsNoMore) {
  EXPECT_THAT([] { allocate(std::int64_t{1} << 60, Device::kCpu); },
              testing::ThrowsMessage<DeviceError>(
                  testing::HasSubstr("out of memory: asked for 1152921504606846976 bytes with ")));
}

}  // namespace
}  // namespace infini
