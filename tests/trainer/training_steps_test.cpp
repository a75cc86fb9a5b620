// What a step does does not depend on how it is carried out: in parts, by either schedule, in fresh
// or in used memory.
#include "tests/trainer/tiny_run.h"

namespace infini {
namespace {

const char* const kSamplers[] = {"crops", "lanes"};
const char* const kSchedules[] = {"parallel", "streaming"};

class TrainingSteps : public ::testing::Test {
 protected:
  struct Result {
    std::vector<double> losses, norms, gradients, masters, memories;
    std::vector<double> start;  // the masters before the first step
  };
  // `steps` steps in fp64. Gradients are those of the last one.
  Result run(std::vector<std::string> overrides, int steps) {
    overrides.push_back("train.compute=fp64");
    Training training = training_of(tiny_config(overrides), store_);
    Result result;
    result.start = training.model().parameters().masters().to_vector<double>();
    for (int i = 0; i < steps; ++i) {
      const StepReport report = training.step();
      result.losses.push_back(report.loss);
      result.norms.push_back(report.gradient_norm);
    }
    result.gradients = training.model().parameters().gradients().to_vector<double>();
    result.masters = training.model().parameters().masters().to_vector<double>();
    for (const auto& [name, bytes] : bytes_of(training)) {
      if (!name.starts_with("memory/")) continue;
      const auto* values = reinterpret_cast<const double*>(bytes.data());
      result.memories.insert(result.memories.end(), values, values + bytes.size() / 8);
    }
    return result;
  }
  static std::vector<double> update(const Result& result) {
    std::vector<double> update = result.masters;
    for (std::size_t i = 0; i < update.size(); ++i) update[i] -= result.start[i];
    return update;
  }
  static void expect_same(const Result& a, const Result& b, double tolerance) {
    EXPECT_LE(relative_error(a.losses, b.losses), tolerance);
    EXPECT_LE(relative_error(a.norms, b.norms), tolerance);
    EXPECT_LE(relative_error(a.gradients, b.gradients), tolerance);
    EXPECT_LE(relative_error(update(a), update(b)), tolerance);
    EXPECT_LE(relative_error(a.memories, b.memories), tolerance);
  }

  TempFolder folder_;
  std::shared_ptr<const TokenStore> store_ = tiny_store(folder_ / "data", kTinyLengths);
};

TEST_F(TrainingSteps, InOneTwoOrFourPartsGiveTheSameUpdate) {
  for (const char* sampler : kSamplers) {
    const std::string data = text("data.sampler=", sampler);
    const Result whole = run({data, "train.accumulate=1"}, 1);
    for (const char* parts : {"2", "4"}) {
      SCOPED_TRACE(text(data, " in ", parts, " parts"));
      expect_same(run({data, text("train.accumulate=", parts)}, 1), whole, 1e-12);
    }
  }
}

TEST_F(TrainingSteps, InPartsStayTheSameOverManySteps) {
  const Result whole =
      run({"data.sampler=lanes", "optim.kind=adamw", "optim.learning_rate=0.01"}, 6);
  EXPECT_GT(whole.memories.size(), 0u);
  expect_same(run({"data.sampler=lanes", "optim.kind=adamw", "optim.learning_rate=0.01",
                   "train.accumulate=4"},
                  6),
              whole, 1e-9);
}

TEST_F(TrainingSteps, AreTheSameInParallelAndStreaming) {
  for (const char* sampler : kSamplers)
    for (const char* memory : {"linear", "delta"}) {
      const std::vector<std::string> base{text("data.sampler=", sampler),
                                          text("model.memory=", memory), "data.row_tokens=40",
                                          "data.batch_rows=2"};
      const auto with = [&](std::vector<std::string> more) {
        more.insert(more.begin(), base.begin(), base.end());
        return more;
      };
      const Result parallel = run(base, 1);
      for (const char* segments : {"1", "2"}) {
        SCOPED_TRACE(text(sampler, ", ", memory, ", ", segments, " segments a tape"));
        expect_same(
            run(with({"train.schedule=streaming", text("train.segments_per_tape=", segments)}), 1),
            parallel, 1e-12);
      }
    }
}

TEST_F(TrainingSteps, RepeatToTheLastBitAndDependOnTheSeed) {
  const Result once = run({}, 3), again = run({}, 3), other = run({"seed=4"}, 3);
  EXPECT_TRUE(once.masters == again.masters);
  EXPECT_FALSE(once.masters == other.masters);
}

TEST_F(TrainingSteps, AskTheSystemForNoMemoryAfterTheSecond) {
  for (const char* sampler : kSamplers)
    for (const char* schedule : kSchedules)
      for (const char* parts : {"1", "2"}) {
        SCOPED_TRACE(text(sampler, ", ", schedule, ", ", parts, " parts"));
        release_cached(Device::kCpu);
        Training training = training_of(
            tiny_config({text("data.sampler=", sampler), text("train.schedule=", schedule),
                         text("train.accumulate=", parts), "train.steps=7"}),
            store_);
        training.step();
        training.step();
        const MemoryStatistics after_two = memory_statistics(Device::kCpu);
        for (int i = 0; i < 5; ++i) training.step();
        const MemoryStatistics after_seven = memory_statistics(Device::kCpu);
        EXPECT_EQ(after_seven.system_allocations, after_two.system_allocations);
        EXPECT_EQ(after_seven.reserved_bytes, after_two.reserved_bytes);
      }
}

}  // namespace
}  // namespace infini
