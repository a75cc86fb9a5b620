#include "optim/groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace infini {
namespace {

TEST(Patterns, MatchWholeNames) {
  EXPECT_TRUE(matches("head.weight", "head.weight"));
  EXPECT_FALSE(matches("head", "head.weight"));
  EXPECT_FALSE(matches("weight", "head.weight"));
  EXPECT_TRUE(matches("", ""));
  EXPECT_FALSE(matches("", "a"));
}

TEST(Patterns, LetAStarStandForAnyText) {
  EXPECT_TRUE(matches("*", ""));
  EXPECT_TRUE(matches("*", "blocks.0.attention.gate"));
  EXPECT_TRUE(matches("*.attention.gate", "blocks.0.attention.gate"));
  EXPECT_FALSE(matches("*.attention.gate", "blocks.0.feed_forward.gate.weight"));
  EXPECT_TRUE(matches("blocks.*.weight", "blocks.3.attention.query.weight"));
  EXPECT_FALSE(matches("blocks.*.weight", "blocks.3.attention.gate"));
  EXPECT_TRUE(matches("*norm*", "final_norm.weight"));
  EXPECT_TRUE(matches("a*b*c", "a.b.b.c"));
  EXPECT_TRUE(matches("*ab", "aab"));
  EXPECT_FALSE(matches("a*b*c", "a.c.b"));
}

TEST(Groups, GiveTheGateItsOwnRateWithoutDecay) {
  const Parameters parameters({{.name = "blocks.0.attention.query.weight", .shape = {4, 4}},
                               {.name = "blocks.0.attention.gate", .shape = {4}},
                               {.name = "final_norm.weight", .shape = {4}}},
                              DType::kFloat32, Device::kCpu);
  OptimConfig config;
  config.learning_rate = 0.003;
  config.weight_decay = 0.1;
  EXPECT_EQ(settings_of(config, parameters["blocks.0.attention.query.weight"]),
            (UpdateSettings{.learning_rate = 0.003, .weight_decay = 0.1, .relative = true}));
  EXPECT_EQ(settings_of(config, parameters["blocks.0.attention.gate"]),
            (UpdateSettings{.learning_rate = 0.01, .weight_decay = 0, .relative = false}));
  EXPECT_EQ(settings_of(config, parameters["final_norm.weight"]),
            (UpdateSettings{.learning_rate = 0.003, .weight_decay = 0, .relative = true}));
}

TEST(Groups, FreezeByTheFirstPatternThatMatches) {
  OptimConfig config;
  EXPECT_FALSE(frozen_by(config)) << "nothing is frozen";
  config.groups = {{.pattern = "*.gate"}, {.pattern = "blocks.*", .frozen = true}};
  const Frozen frozen = frozen_by(config);
  EXPECT_FALSE(frozen("blocks.0.attention.gate"));
  EXPECT_TRUE(frozen("blocks.0.attention.query.weight"));
  EXPECT_FALSE(frozen("final_norm.weight"));
}

TEST(Groups, CountInTheirOrder) {
  const Parameters parameters({{.name = "final_norm.weight", .shape = {4}}}, DType::kFloat32,
                              Device::kCpu);
  OptimConfig config;
  config.learning_rate = 0.5;
  config.groups = {{.pattern = "*norm*", .weight_decay = 0.2},
                   {.pattern = "*", .learning_rate = 0.1, .relative = true}};
  EXPECT_EQ(settings_of(config, parameters["final_norm.weight"]),
            (UpdateSettings{.learning_rate = 0.5, .weight_decay = 0.2, .relative = false}));
}

TEST(Groups, ThatMatchNothingAreNamed) {
  const std::vector<ParameterSpec> specs = {{.name = "final_norm.weight", .shape = {4}}};
  OptimConfig config;  // its own group for gates may find none: local attention has none
  EXPECT_THAT(idle_patterns(config, specs), testing::IsEmpty());
  config.groups = {{.pattern = "*norm*"}, {.pattern = "*.nrom"}, {.pattern = "blocks.*"}};
  EXPECT_THAT(idle_patterns(config, specs), testing::ElementsAre("*.nrom", "blocks.*"));
}

}  // namespace
}  // namespace infini
