#include "optim/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace infini {
namespace {

std::string refusal(const std::function<void(OptimConfig&)>& change) {
  OptimConfig config;
  change(config);
  try {
    config.validate();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(OptimConfig, AcceptsItsDefaults) {
  EXPECT_EQ(refusal([](OptimConfig&) {}), "");
}

TEST(OptimConfig, RefusesWhatCannotTrain) {
  EXPECT_EQ(refusal([](OptimConfig& c) { c.learning_rate = -1; }),
            "optim.learning_rate must be positive, got -1");
  EXPECT_EQ(refusal([](OptimConfig& c) { c.learning_rate = NAN; }),
            "optim.learning_rate must be finite, got nan");
  EXPECT_EQ(refusal([](OptimConfig& c) { c.warmup_steps = -5; }),
            "optim.warmup_steps must not be negative, got -5");
  EXPECT_EQ(refusal([](OptimConfig& c) { c.final_fraction = 1.5; }),
            "optim.final_fraction must be in 0..1, got 1.5");
  EXPECT_EQ(refusal([](OptimConfig& c) { c.clip_norm = -1; }),
            "optim.clip_norm must not be negative, got -1");
  EXPECT_EQ(refusal([](OptimConfig& c) { c.weight_decay = -0.1; }),
            "optim.weight_decay must not be negative, got -0.1");
  EXPECT_EQ(refusal([](OptimConfig& c) { c.adamw.beta2 = 1; }),
            "optim.adamw.beta2 must be at least 0 and below 1, got 1");
  EXPECT_EQ(refusal([](OptimConfig& c) { c.adamw.epsilon = 0; }),
            "optim.adamw.epsilon must be positive, got 0");
  EXPECT_EQ(refusal([](OptimConfig& c) { c.adafactor.momentum = 1; }),
            "optim.adafactor.momentum must be at least 0 and below 1, got 1");
  EXPECT_EQ(refusal([](OptimConfig& c) { c.adafactor.factored_from = 0; }),
            "optim.adafactor.factored_from must be at least 1, got 0");
  EXPECT_EQ(refusal([](OptimConfig& c) { c.groups = {{.pattern = ""}}; }),
            "optim.groups: a group without a pattern");
  EXPECT_EQ(
      refusal([](OptimConfig& c) { c.groups = {{.pattern = "*.norm", .learning_rate = -2}}; }),
      "optim.groups.*.norm.learning_rate must not be negative, got -2");
  EXPECT_EQ(refusal([](OptimConfig& c) {
              c.groups = {{.pattern = "*.norm", .learning_rate = 2, .frozen = true}};
            }),
            "optim.groups.*.norm.learning_rate says nothing beside frozen = true, which never "
            "updates the group");
  EXPECT_EQ(refusal([](OptimConfig& c) {
              c.groups = {{.pattern = "*.norm", .weight_decay = 1, .frozen = true}};
            }),
            "optim.groups.*.norm.weight_decay says nothing beside frozen = true, which never "
            "updates the group");
}

}  // namespace
}  // namespace infini
