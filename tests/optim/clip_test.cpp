#include "optim/clip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace infini {
namespace {

Parameters with_gradients(const std::vector<float>& gradients) {
  Parameters parameters({{.name = "a", .shape = {2}},
                         {.name = "b", .shape = {static_cast<std::int64_t>(gradients.size()) - 2}}},
                        DType::kFloat32, Device::kCpu);
  parameters.gradients().copy_from(Tensor::of(gradients, parameters.gradients().shape()));
  return parameters;
}

TEST(Clip, MeasuresAllGradientsTogether) {
  EXPECT_DOUBLE_EQ(gradient_norm(with_gradients({1, 2, 4, -10})), 11);
  EXPECT_DOUBLE_EQ(gradient_norm(with_gradients({3e20f, 0, 0, 4e20f})), 5e20f);
}

TEST(Clip, ScalesOnlyWhatIsTooLong) {
  EXPECT_EQ(clip_factor(0.5, 1), 1);
  EXPECT_EQ(clip_factor(1, 1), 1);
  EXPECT_EQ(clip_factor(4, 1), 0.25);
  EXPECT_EQ(clip_factor(4, 0), 1);  // off
  EXPECT_EQ(clip_factor(0, 1), 1);
}

TEST(Clip, ShowsGradientsThatAreNotNumbers) {
  EXPECT_TRUE(std::isnan(gradient_norm(with_gradients({1, 2, NAN, 3}))));
  EXPECT_TRUE(std::isinf(gradient_norm(with_gradients({1, 2, INFINITY, 3}))));
  EXPECT_THAT(
      [] { clip_factor(NAN, 1); },
      testing::ThrowsMessage<Error>("clip_factor: the gradient norm is nan, expected a number"));
}

}  // namespace
}  // namespace infini
