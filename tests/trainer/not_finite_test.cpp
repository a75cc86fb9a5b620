// A loss that is not finite costs the step, never the model: the step is skipped and counted, and
// after too many in a row the run stops and says why.
#include <cmath>
#include <limits>
#include <span>

#include "tests/trainer/program.h"
#include "tests/trainer/tiny_run.h"

namespace infini {
namespace {

class NotFinite : public ::testing::Test {
 protected:
  Training training_with(std::vector<std::string> overrides) {
    overrides.push_back("data.sampler=lanes");
    return training_of(tiny_config(overrides), store_);
  }
  // Of a parameter; the model computes with what is written here.
  static std::span<float> elements(Training& training, const std::string& name) {
    const Tensor& master = training.model().parameters()[name].master;
    return {master.data<float>(), static_cast<std::size_t>(master.size())};
  }
  static float& element(Training& training, const std::string& name) {
    return elements(training, name)[3];
  }

  TempFolder folder_;
  std::shared_ptr<const TokenStore> store_ = tiny_store(folder_ / "data", kTinyLengths);
};

TEST_F(NotFinite, StepIsSkippedAndLeavesEverythingAsItWas) {
  for (const char* kind : {"adafactor", "adamw"})
    for (const float poison :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      SCOPED_TRACE(text(kind, " with ", poison));
      Training training = training_with({text("optim.kind=", kind)});
      training.step();
      training.step();
      element(training, "blocks.0.attention.value.weight") = poison;
      const Bytes before = bytes_of(training);
      const StepReport report = training.step();
      EXPECT_TRUE(report.skipped);
      EXPECT_EQ(report.step, 3);
      EXPECT_TRUE(bytes_of(training) == before);  // weights, optimizer state, carried memories
      EXPECT_EQ(training.steps_done(), 3);        // its rows are not seen again
      const auto position = nlohmann::json::parse(training.contents().position_json);
      EXPECT_EQ(position.at("skipped"), 1);
      EXPECT_EQ(position.at("optimizer_steps"), 2);
    }
}

TEST_F(NotFinite, TrainingGoesOnOnceTheLossIsFiniteAgain) {
  Training training = training_with({"train.skips_allowed=2", "train.steps=9"});
  float& weight = element(training, "final_norm.weight");
  for (int round = 0; round < 2; ++round) {  // four skips, but never more than two in a row
    EXPECT_FALSE(training.step().skipped);
    const float good = weight;
    weight = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(training.step().skipped);
    EXPECT_TRUE(training.step().skipped);
    weight = good;
    EXPECT_FALSE(training.step().skipped);
  }
  EXPECT_EQ(nlohmann::json::parse(training.contents().position_json).at("skipped"), 4);
}

TEST_F(NotFinite, MemoryIsNotCarriedOnEvenWhereTheLossDoesNotSeeIt) {
  Training training = training_with({"data.row_tokens=8"});  // written after the only segment
  training.step();
  const Bytes before = bytes_of(training);
  // Keys and values whose products overflow, behind an output projection of zeros: no gradient
  // reaches them.
  const std::pair<const char*, float> factors[] = {
      {"key", 1e20f}, {"value", 1e20f}, {"output", 0.0f}};
  std::vector<float> kept;
  for (const auto& [name, factor] : factors) {
    const std::string parameter = text("blocks.1.attention.", name, ".weight");
    for (float& weight : elements(training, parameter)) {
      kept.push_back(weight);
      weight *= factor;
    }
  }
  const StepReport report = training.step();
  EXPECT_TRUE(std::isfinite(report.loss) && std::isfinite(report.gradient_norm));
  EXPECT_TRUE(report.skipped);
  std::size_t next = 0;
  for (const auto& [name, factor] : factors) {
    const std::string parameter = text("blocks.1.attention.", name, ".weight");
    for (float& weight : elements(training, parameter)) weight = kept[next++];
  }
  EXPECT_TRUE(bytes_of(training) == before);
}

TEST_F(NotFinite, TooManyInARowStopTheRunWithAllFigures) {
  Training training = training_with({"train.skips_allowed=2", "train.steps=9"});
  training.step();
  element(training, "final_norm.weight") = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(training.step().skipped);
  EXPECT_TRUE(training.step().skipped);
  EXPECT_EQ(message_of<Error>([&] { training.step(); }),
            "step 4: loss nan, gradient norm nan; 3 steps in a row were not finite, "
            "train.skips_allowed is 2");
}

using NotFiniteRun = ProgramTest;

TEST_F(NotFiniteRun, IsCountedInTheMetricsAndExitsWith1) {
  write("run.yaml", kTinyRun);
  tiny_store(path("data"), kTinyLengths);
  // The second step sees weights that the first one threw far beyond fp32.
  const std::string absurd =
      "train run.yaml optim.kind=adamw optim.learning_rate=1e38 optim.warmup_steps=0 "
      "optim.clip_norm=0 train.steps=9 checkpoint.every=1 checkpoint.keep=0 train.skips_allowed=3";
  expect_refused(absurd, 1, "4 steps in a row were not finite, train.skips_allowed is 3");
  const auto lines = metrics("run");
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0].at("skipped"), 0);
  EXPECT_TRUE(lines[0].at("loss").is_number());
  for (std::size_t i = 1; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i].at("skipped"), 1);
    EXPECT_TRUE(lines[i].at("gradient_norm").is_null());
  }
  EXPECT_EQ(Checkpoint(path("run/checkpoints/step-00000001")).step(), 1);
}

}  // namespace
}  // namespace infini
