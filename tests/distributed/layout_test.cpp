#include "distributed/layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace infini {
namespace {

TEST(Axes, DataTakesWhatTheOthersLeave) {
  const Axes axes = axes_of(24, {.data = 0, .tensor = 2, .segment = 3});
  EXPECT_EQ(axes.data, 4);
  EXPECT_EQ(axes.segments, 3);
  EXPECT_EQ(axes.tensors, 2);
  EXPECT_EQ(axes.ranks(), 24);
  EXPECT_EQ(axes.copies(), 12);
}

TEST(Axes, RefuseWhatDoesNotMultiply) {
  const auto refusal = [](int ranks, const ParallelConfig& config) -> std::string {
    try {
      axes_of(ranks, config);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return {};
  };
  EXPECT_THAT(refusal(4, {.data = 0, .tensor = 3}),
              testing::HasSubstr("is 3, which does not divide the 4 ranks"));
  EXPECT_THAT(refusal(4, {.data = 3}), testing::HasSubstr("is 3, but this run has 4 ranks"));
}

}  // namespace
}  // namespace infini
