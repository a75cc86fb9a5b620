#include "optim/clip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tensor/system_memory.h"

namespace infini {
namespace {

Parameters with_gradients(const std::vector<float>& gradients, Device device = Device::kCpu) {
  Parameters parameters({{.name = "a", .shape = {2}},
                         {.name = "b", .shape = {static_cast<std::int64_t>(gradients.size()) - 2}}},
                        DType::kFloat32, device);
  parameters.gradients().copy_from(Tensor::of(gradients, parameters.gradients().shape()));
  return parameters;
}

double number(const Tensor& scalar) { return scalar.to(Device::kCpu).item(); }

double norm_of(const std::vector<float>& gradients) {
  return number(gradient_scale(with_gradients(gradients), {}, 1).norm);
}
double scale_of(const std::vector<float>& gradients, double clip_norm,
                const std::vector<Tensor>& conditions = {}) {
  return number(gradient_scale(with_gradients(gradients), conditions, clip_norm).scale);
}

Tensor scalar(double value, DType dtype = DType::kFloat64) {
  return Tensor::of(std::vector<double>{value}, {}).to(dtype);
}

TEST(Clip, MeasuresAllGradientsTogether) {
  EXPECT_DOUBLE_EQ(norm_of({1, 2, 4, -10}), 11);
  EXPECT_DOUBLE_EQ(norm_of({3e20f, 0, 0, 4e20f}), 5e20f);
}

TEST(Clip, ScalesOnlyWhatIsTooLong) {
  EXPECT_EQ(scale_of({0, 0.5, 0}, 1), 1);
  EXPECT_EQ(scale_of({0, 1, 0}, 1), 1);
  EXPECT_EQ(scale_of({0, 0, 4}, 1), 0.25);
  EXPECT_EQ(scale_of({0, 0, 4}, 0), 1);  // off
  EXPECT_EQ(scale_of({0, 0, 0}, 1), 1);
}

TEST(Clip, HasNoScaleForGradientsThatAreNotNumbers) {
  EXPECT_TRUE(std::isnan(norm_of({1, 2, NAN, 3})));
  EXPECT_TRUE(std::isinf(norm_of({1, 2, INFINITY, 3})));
  for (const double clip_norm : {0.0, 1.0}) {
    EXPECT_TRUE(std::isnan(scale_of({1, 2, NAN, 3}, clip_norm)));
    EXPECT_TRUE(std::isnan(scale_of({1, 2, INFINITY, 3}, clip_norm)));
  }
}

TEST(Clip, HasNoScaleWhereAConditionIsNotANumber) {
  const Tensor good = scalar(2.5, DType::kBFloat16);
  EXPECT_EQ(scale_of({0, 0, 4}, 1, {good, scalar(7)}), 0.25);
  for (const DType dtype : {DType::kFloat64, DType::kFloat32, DType::kBFloat16}) {
    EXPECT_TRUE(std::isnan(scale_of({0, 0, 4}, 1, {good, scalar(NAN, dtype)})));
    EXPECT_TRUE(std::isnan(scale_of({0, 0, 4}, 1, {scalar(-INFINITY, dtype), good})));
  }
}

TEST(Clip, RefusesConditionsThatAreNotScalars) {
  EXPECT_THAT(
      [] {
        scale_of({0, 0, 4}, 1, {scalar(1), Tensor::zeros({3}, DType::kFloat32)});
      },
      testing::ThrowsMessage<Error>(
          "gradient_scale: condition 1 is [3] on cpu, expected a scalar on cpu"));
}

class GpuClip : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  }
};

TEST_F(GpuClip, AgreesWithTheCpu) {
  const std::vector<std::vector<float>> gradients = {
      {1, 2, 4, -10}, {0.1f, 0.2f, 0.3f}, {0, 0, 0}, {1, NAN, 2}, {1, 2, INFINITY}};
  const std::vector<std::vector<double>> conditions = {{}, {1}, {1, NAN}, {-INFINITY, 2, 3}};
  for (const auto& values : gradients)
    for (const auto& numbers : conditions)
      for (const DType dtype : {DType::kFloat64, DType::kFloat32, DType::kBFloat16})
        for (const double clip_norm : {0.0, 1.0}) {
          std::vector<Tensor> here, there;
          for (const double value : numbers) {
            here.push_back(scalar(value, dtype));
            there.push_back(here.back().to(Device::kCuda));
          }
          const auto cpu = gradient_scale(with_gradients(values), here, clip_norm);
          const auto gpu = gradient_scale(with_gradients(values, Device::kCuda), there, clip_norm);
          EXPECT_THAT(number(gpu.norm), testing::NanSensitiveDoubleEq(cpu.norm.item()));
          EXPECT_THAT(number(gpu.scale), testing::NanSensitiveDoubleEq(cpu.scale.item()));
        }
}

}  // namespace
}  // namespace infini
