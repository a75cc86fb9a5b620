// Two schedules, one gradient: however a row is cut into tapes, training computes the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tensor/parallel.h"
#include "tests/model/tiny_model.h"

namespace infini {
namespace {

struct Trained {
  RowsResult result;
  std::vector<double> gradients;
  Memories dmemory;
};

Trained train(const Tiny& tiny, const Rows& rows, const RecurrenceOptions& options,
              bool with_memory = true) {
  InfiniTransformer model = model_of(tiny);
  const Memories memory = with_memory && tiny.carries()
                              ? random_memories(model.config(), rows.batch(), tiny.dtype)
                              : empty_memories(model.config());
  Trained trained;
  trained.result = Recurrence(model, options)
                       .train(rows, memory, 0.1, {}, with_memory ? &trained.dmemory : nullptr);
  trained.gradients = model.parameters().gradients().to_vector<double>();
  return trained;
}

void expect_near(const Trained& a, const Trained& b, double tolerance) {
  EXPECT_NEAR(a.result.loss.item() / b.result.loss.item(), 1, tolerance);
  EXPECT_LE(relative_error(a.result.nll, b.result.nll), tolerance);
  EXPECT_LE(relative_error(a.gradients, b.gradients), tolerance);
  expect_near(a.result.memory, b.result.memory, tolerance);
  expect_near(a.dmemory, b.dmemory, tolerance);
}

const RecurrenceOptions kWhole{.schedule = RowSchedule::kParallel};

RecurrenceOptions streaming(std::int64_t segments_per_tape) {
  return {.schedule = RowSchedule::kStreaming, .segments_per_tape = segments_per_tape};
}

class Schedules : public testing::TestWithParam<Tiny> {};

TEST_P(Schedules, AgreeOnLossGradientsAndMemories) {
  for (const bool with_memory : {false, true}) {
    const Trained whole = train(GetParam(), rich_rows(), kWhole, with_memory);
    for (const std::int64_t segments : {1, 2, 3, 5, 9}) {
      SCOPED_TRACE(text(segments, " segments per tape", with_memory ? " after a memory" : ""));
      expect_near(train(GetParam(), rich_rows(), streaming(segments), with_memory), whole, 1e-12);
    }
  }
}

TEST_P(Schedules, AgreeOnATruncatedGradient) {
  for (const std::int64_t horizon : {1, 2, 3, 4}) {
    RecurrenceOptions options = kWhole;
    options.gradient_horizon = horizon;
    const Trained whole = train(GetParam(), rich_rows(), options);
    for (const std::int64_t segments : {1, 2, 3}) {
      SCOPED_TRACE(text("horizon ", horizon, ", ", segments, " segments per tape"));
      options = streaming(segments);
      options.gradient_horizon = horizon;
      expect_near(train(GetParam(), rich_rows(), options), whole, 1e-12);
    }
  }
}

TEST_P(Schedules, AgreeInGroupsOfSegments) {
  if (GetParam().architecture != Architecture::kInfini) return;  // refused
  const Rows rows = part_of(rich_rows(), 0, 20);
  for (const std::int64_t horizon : {0, 1, 2, 3}) {
    RecurrenceOptions options = kWhole;
    options.gradient_horizon = horizon;
    const Trained whole = train(GetParam(), rows, options);
    for (const std::int64_t segments : {1, 2, 4}) {
      SCOPED_TRACE(text("horizon ", horizon, ", groups of ", segments));
      options.group_segments = segments;
      expect_near(train(GetParam(), rows, options), whole, 1e-12);
    }
  }
}

TEST_P(Schedules, TruncateOnlyTheGradientAndOnlyWithinTheRow) {
  const Rows rows = rows_of(28);
  const Trained full = train(GetParam(), rows, kWhole);
  for (const std::int64_t horizon : {1, 2, 6, 100}) {
    RecurrenceOptions options = kWhole;
    options.gradient_horizon = horizon;
    const Trained cut = train(GetParam(), rows, options);
    EXPECT_EQ(cut.result.loss.item(), full.result.loss.item());
    const double difference = relative_error(cut.gradients, full.gradients);
    if (horizon >= rows.segments() || !GetParam().carries_gradients())
      EXPECT_EQ(difference, 0) << "horizon " << horizon;
    else
      EXPECT_GT(difference, 1e-3) << "horizon " << horizon;
  }
}

TEST_P(Schedules, GiveTheSameBytesWithBlocksRecomputed) {
  for (const DType dtype : {DType::kFloat64, DType::kFloat32, DType::kBFloat16})
    for (RecurrenceOptions options : {kWhole, streaming(1), streaming(2)}) {
      Tiny tiny = GetParam();
      tiny.dtype = dtype;
      const Trained kept = train(tiny, rich_rows(), options);
      options.recompute_blocks = true;
      const Trained repeated = train(tiny, rich_rows(), options);
      EXPECT_EQ(repeated.result.loss.item(), kept.result.loss.item()) << dtype;
      EXPECT_EQ(repeated.gradients, kept.gradients) << dtype;
      expect_near(repeated.dmemory, kept.dmemory, 0);
    }
}

TEST_P(Schedules, GiveTheSameBytesEveryTimeAndOnAnyNumberOfThreads) {
  for (const RecurrenceOptions& options : {kWhole, streaming(2)}) {
    Tiny tiny = GetParam();
    tiny.dtype = DType::kFloat32;
    const Trained first = train(tiny, rich_rows(), options);
#ifdef _OPENMP
    const int usual = omp_get_max_threads();
    for (const int threads : {1, 2, 3, usual}) {
      omp_set_num_threads(threads);
#else
    for (const int threads : {1, 1}) {
#endif
      const Trained again = train(tiny, rich_rows(), options);
      EXPECT_EQ(again.result.loss.item(), first.result.loss.item()) << threads << " threads";
      EXPECT_EQ(again.gradients, first.gradients) << threads << " threads";
    }
  }
}

TEST_P(Schedules, StayNearFp64InShorterTypes) {
  const Trained exact = train(GetParam(), rich_rows(), kWhole);
  for (const auto& [dtype, tolerance] :
       {std::pair{DType::kFloat32, 1e-4}, std::pair{DType::kBFloat16, 0.15}})
    for (const RecurrenceOptions& options : {kWhole, streaming(1)}) {
      SCOPED_TRACE(dtype);
      Tiny tiny = GetParam();
      tiny.dtype = dtype;
      expect_near(train(tiny, rich_rows(), options), exact, tolerance);
    }
}

TEST_P(Schedules, AddToTheGradientsThatStandThere) {
  InfiniTransformer model = model_of(GetParam());
  const Memories memory = empty_memories(model.config());
  const auto gradients = [&] { return model.parameters().gradients().to_vector<double>(); };
  const auto run = [&](const RecurrenceOptions& options) {
    Recurrence(model, options).train(rich_rows(), memory, 0.1, {});
  };
  run(kWhole);
  std::vector<double> twice = gradients();
  for (double& value : twice) value *= 2;
  run(streaming(2));
  EXPECT_LE(relative_error(gradients(), twice), 1e-12);
}

TEST_P(Schedules, LoseNothingWhenAllLossesAreUnweighted) {
  const Rows rows = rows_of(28);
  const InfiniTransformer model = model_of(GetParam());
  double sum = 0;
  const RowsResult evaluated =
      Recurrence(model, {}).evaluate(rows, empty_memories(model.config()), 2);
  for (const double nll : evaluated.nll.to_vector<double>()) sum += nll;
  EXPECT_NEAR(evaluated.loss.item() / sum, 1, 1e-12);
  EXPECT_NEAR(train(GetParam(), rows, kWhole, false).result.loss.item() / (0.1 * sum), 1, 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Models, Schedules, testing::ValuesIn(kTinies), tiny_name);

class InitialMemory : public testing::TestWithParam<Tiny> {};

TEST_P(InitialMemory, HasTheGradientOfFiniteDifferences) {
  const InfiniTransformer model = model_of(GetParam());
  const Rows rows = rows_of(13);
  Memories memory = random_memories(model.config(), 2, DType::kFloat64), dmemory;
  const Recurrence recurrence(model, streaming(1));
  recurrence.train(rows, memory, 1, {}, &dmemory);
  for (std::size_t layer = 0; layer < memory.size(); ++layer)
    for (const MemoryPart& part : kMemoryParts) {
      const Tensor &state = memory[layer].*part.tensor, &gradient = dmemory[layer].*part.tensor;
      ASSERT_EQ(bool(gradient), state && part.has_gradient) << part.name;
      for (std::int64_t i = 0; gradient && i < state.size(); i += 5) {
        double& value = state.data<double>()[i];
        const double before = value;
        constexpr double kStep = 1e-5;
        value = before + kStep;
        const double above = recurrence.evaluate(rows, memory, 3).loss.item();
        value = before - kStep;
        const double below = recurrence.evaluate(rows, memory, 3).loss.item();
        value = before;
        EXPECT_NEAR(gradient.data<double>()[i], (above - below) / (2 * kStep), 1e-7)
            << part.name << " of layer " << layer << ", " << i;
      }
    }
}

INSTANTIATE_TEST_SUITE_P(Models, InitialMemory,
                         testing::Values(Tiny{.memory = MemoryRule::kLinear, .kv_heads = 1},
                                         Tiny{.memory = MemoryRule::kDelta, .kv_heads = 2},
                                         Tiny{.memory = MemoryRule::kDelta, .kv_heads = 1},
                                         Tiny{.memory = MemoryRule::kNone,
                                              .kv_heads = 1,
                                              .architecture = Architecture::kRmt,
                                              .memory_tokens = 2},
                                         Tiny{.memory = MemoryRule::kNone,
                                              .kv_heads = 2,
                                              .architecture = Architecture::kAutoCompressor,
                                              .memory_tokens = 2,
                                              .memory_segments = 2},
                                         Tiny{.memory = MemoryRule::kNone,
                                              .kv_heads = 1,
                                              .architecture = Architecture::kTransformerFam,
                                              .cache_tokens = 7,
                                              .memory_tokens = 2},
                                         Tiny{.memory = MemoryRule::kNone,
                                              .kv_heads = 2,
                                              .architecture = Architecture::kMegalodon,
                                              .ema_size = 3,
                                              .norm_groups = 4}),
                         tiny_name);

TEST(CutRow, PutsARaggedSegmentLastAndAlone) {
  const auto cut = [](std::int64_t row, std::int64_t segment, std::int64_t most) {
    std::string pieces;
    for (const Piece& piece : cut_row(row, segment, most))
      pieces += text(piece.first, "+", piece.count, "x", piece.tokens, " ");
    return pieces;
  };
  EXPECT_EQ(cut(28, 5, 2), "0+2x5 2+2x5 4+1x5 5+1x3 ");
  EXPECT_EQ(cut(28, 5, 100), "0+5x5 5+1x3 ");
  EXPECT_EQ(cut(25, 5, 5), "0+5x5 ");
  EXPECT_EQ(cut(3, 5, 1), "0+1x3 ");
}

// A copy of the flat gradients taken whenever some become final holds their last values.
TEST(Schedules, SayWhichGradientsAreFinalDuringTheBackwardPass) {
  for (const RowSchedule schedule : {RowSchedule::kParallel, RowSchedule::kStreaming})
    for (const Tiny& tiny : kTinies) {
      SCOPED_TRACE(name_of(tiny));
      const InfiniTransformer model = model_of(tiny);
      const Parameters& parameters = model.parameters();
      std::vector<std::pair<std::int64_t, std::vector<double>>> told;
      const GradientsFinal final = [&](std::int64_t first) {
        told.emplace_back(first, parameters.gradients().to_vector<double>());
      };
      Recurrence(model, {.schedule = schedule, .segments_per_tape = 2})
          .train(rows_of(23), empty_memories(model.config()), 0.1, {}, nullptr, &final);
      const std::vector<double> last = parameters.gradients().to_vector<double>();
      ASSERT_EQ(told.size(), 2u);
      for (const int block : {0, 1}) {
        const auto first = std::ranges::find_if(parameters.all(), [&](const Parameter& each) {
          return each.name.starts_with(text("blocks.", block, "."));
        });
        EXPECT_EQ(told[1 - block].first, first->offset);
      }
      for (const auto& [first, gradients] : told)
        EXPECT_TRUE(std::equal(gradients.begin() + first, gradients.end(), last.begin() + first));
    }
}

}  // namespace
}  // namespace infini
