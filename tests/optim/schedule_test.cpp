#include "optim/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace infini {
namespace {

OptimConfig with(Schedule schedule, std::int64_t warmup_steps, double final_fraction = 0.1) {
  OptimConfig config;
  config.schedule = schedule;
  config.warmup_steps = warmup_steps;
  config.final_fraction = final_fraction;
  return config;
}

TEST(Schedule, WarmsUpInEqualSteps) {
  for (const Schedule schedule : {Schedule::kCosine, Schedule::kInverseSqrt, Schedule::kConstant}) {
    const OptimConfig config = with(schedule, 10);
    EXPECT_DOUBLE_EQ(learning_rate_factor(config, 1, 100), 0.1);
    EXPECT_DOUBLE_EQ(learning_rate_factor(config, 5, 100), 0.5);
    EXPECT_DOUBLE_EQ(learning_rate_factor(config, 10, 100), 1);
    EXPECT_LE(learning_rate_factor(config, 11, 100), 1);
    EXPECT_GT(learning_rate_factor(config, 11, 100), 0.9);
  }
}

TEST(Schedule, FallsAsACosineToItsFinalFraction) {
  const OptimConfig config = with(Schedule::kCosine, 10);
  EXPECT_DOUBLE_EQ(learning_rate_factor(config, 55, 100), 0.55);  // half way: the mean of 1 and 0.1
  EXPECT_DOUBLE_EQ(learning_rate_factor(config, 100, 100), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate_factor(config, 1000, 100), 0.1);
  for (int step = 11; step <= 100; ++step)
    EXPECT_LT(learning_rate_factor(config, step, 100), learning_rate_factor(config, step - 1, 100));
}

TEST(Schedule, FallsWithTheInverseSquareRootOfTheStep) {
  EXPECT_DOUBLE_EQ(learning_rate_factor(with(Schedule::kInverseSqrt, 10), 40, 50), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_factor(with(Schedule::kInverseSqrt, 0), 1, 50), 1);
  EXPECT_DOUBLE_EQ(learning_rate_factor(with(Schedule::kInverseSqrt, 0), 16, 50), 0.25);
}

TEST(Schedule, StaysConstantWhateverTheLengthOfTheRun) {
  EXPECT_EQ(learning_rate_factor(with(Schedule::kConstant, 0), 1, 1), 1);
  EXPECT_EQ(learning_rate_factor(with(Schedule::kConstant, 3), 999, 10), 1);
}

TEST(Schedule, SurvivesARunShorterThanItsWarmUp) {
  const OptimConfig config = with(Schedule::kCosine, 100);
  EXPECT_DOUBLE_EQ(learning_rate_factor(config, 20, 20), 0.2);
  EXPECT_DOUBLE_EQ(learning_rate_factor(config, 100, 100), 1);
  EXPECT_DOUBLE_EQ(learning_rate_factor(config, 101, 100), 0.1);
}

TEST(Schedule, RefusesStepZero) {
  EXPECT_THAT(
      [] { learning_rate_factor({}, 0, 10); },
      testing::ThrowsMessage<Error>("learning_rate_factor: step 0, steps are counted from 1"));
}

}  // namespace
}  // namespace infini
