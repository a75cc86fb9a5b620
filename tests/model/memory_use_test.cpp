// What training asks of the allocator.
#include <gtest/gtest.h>

#include "tests/model/tiny_model.h"

namespace infini {
namespace {

MemoryStatistics now() { return memory_statistics(Device::kCpu); }

TEST(Training, AsksTheSystemForNothingAfterTheSecondStep) {
  for (const Tiny& tiny : kTinies)
    for (const RecurrenceOptions& options :
         {RecurrenceOptions{}, RecurrenceOptions{.recompute_blocks = true},
          RecurrenceOptions{.schedule = RowSchedule::kStreaming, .segments_per_tape = 2}}) {
      const InfiniTransformer model = model_of(tiny);
      const Rows rows = rich_rows();
      Memories memory = empty_memories(model.config());
      const auto step = [&] {
        memory = Recurrence(model, options).train(rows, memory, 0.1, {}).memory;
      };
      step();
      step();
      const MemoryStatistics before = now();
      for (int i = 0; i < 5; ++i) step();
      EXPECT_EQ(now().system_allocations, before.system_allocations) << name_of(tiny);
      EXPECT_EQ(now().in_use_bytes, before.in_use_bytes) << name_of(tiny);
    }
}

TEST(Training, LeavesNothingBehind) {
  const InfiniTransformer model = model_of({.memory = MemoryRule::kDelta});
  const Rows rows = rich_rows();
  const std::int64_t before = now().in_use_bytes;
  for (const RowSchedule schedule : {RowSchedule::kParallel, RowSchedule::kStreaming})
    Recurrence(model, {.schedule = schedule}).train(rows, empty_memories(model.config()), 0.1, {});
  EXPECT_EQ(now().in_use_bytes, before);
}

// The peak over what is in use before a step of `segments` segments.
std::int64_t peak_of(const RecurrenceOptions& options, std::int64_t segments, Tiny tiny) {
  tiny.segment_tokens = 32;
  tiny.dtype = DType::kFloat32;
  const InfiniTransformer model = model_of(tiny);
  const Rows rows = rows_of(32 * segments, 32, 1);
  reset_peak(Device::kCpu);
  const std::int64_t before = now().in_use_bytes;
  Recurrence(model, options).train(rows, empty_memories(model.config()), 0.1, {});
  return now().peak_bytes - before;
}

TEST(Streaming, PeaksGrowByTheBorderMemoriesAlone) {
  const RecurrenceOptions streaming{.schedule = RowSchedule::kStreaming};
  // Of each of the 2 layers: 2 heads of 6 x 6 + 6 numbers in blocks of at least 256 bytes; the
  // losses of 32 tokens.
  constexpr std::int64_t kBorder = 2 * (512 + 256) + 32 * 4;
  const std::int64_t growth = peak_of(streaming, 40, {}) - peak_of(streaming, 8, {});
  EXPECT_LE(growth, 32 * kBorder * 9 / 8);
  EXPECT_GT(peak_of({}, 40, {}) - peak_of({}, 8, {}), 10 * growth);
}

// Where the memory is the model's, a border holds it and not the segment that wrote it.
TEST(Streaming, PeaksGrowByTheBorderVectorsAlone) {
  const RecurrenceOptions streaming{.schedule = RowSchedule::kStreaming};
  const Tiny rmt{
      .memory = MemoryRule::kNone, .architecture = Architecture::kRmt, .memory_tokens = 4};
  // 4 vectors of 12 numbers and a flag for each; the losses of 32 tokens.
  constexpr std::int64_t kBorder = 256 + 256 + 32 * 4;
  EXPECT_LE(peak_of(streaming, 40, rmt) - peak_of(streaming, 8, rmt), 32 * kBorder * 9 / 8);
}

TEST(RecomputedBlocks, PeakBelowTheTapeThatKeepsThem) {
  const Tiny deep{.layers = 12};
  EXPECT_LT(peak_of({.recompute_blocks = true}, 40, deep), peak_of({}, 40, deep) / 2);
}

}  // namespace
}  // namespace infini
