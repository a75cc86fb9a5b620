// Steps on a CUDA device against the same steps on the CPU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "optim/clip.h"
#include "optim/optimizer.h"
#include "tensor/random.h"
#include "tensor/system_memory.h"
#include "tests/tensor/fake_groups.h"

namespace infini {
namespace {

// Sides that fill tiles of kernels, sides that do not, a parameter that ends where the next cannot
// be read in packs, and a matrix of more than one tile in both directions.
std::vector<ParameterSpec> specs() {
  return {{.name = "embedding.weight", .shape = {300, 1100}, .deviation = 0.1},
          {.name = "blocks.0.attention.gate", .shape = {8}, .full_precision = true},
          {.name = "blocks.0.feed_forward.up.weight", .shape = {128, 512}, .deviation = 0.1},
          {.name = "final_norm.weight", .shape = {40000}, .mean = 1, .full_precision = true},
          {.name = "narrow.weight", .shape = {700, 30}, .deviation = 2},
          {.name = "odd.weight", .shape = {131, 517}, .deviation = 0.1},
          {.name = "shifted.weight", .shape = {256, 140}, .deviation = 0.1},
          {.name = "shifted.bias", .shape = {3}}};
}

// As if each were one of two parts, of rows or of columns in turn.
std::vector<ParameterSpec> halves() {
  std::vector<ParameterSpec> parts = specs();
  for (std::size_t i = 0; i < parts.size(); ++i)
    parts[i].division = {.axis = parts[i].shape.rank() == 2 ? int(i % 2) : 0, .count = 2};
  return parts;
}

struct Model {
  Parameters parameters;
  std::unique_ptr<Optimizer> optimizer;

  Model(const OptimConfig& config, DType compute, Device device, bool freeze = false,
        const TensorGroup* group = nullptr)
      : parameters(group ? halves() : specs(), compute, Device::kCpu) {
    parameters.initialise(7);
    if (device != Device::kCpu) {
      const Parameters here = parameters;
      parameters = Parameters(group ? halves() : specs(), compute, device);
      parameters.masters().copy_from(here.masters());
      for (std::size_t i = 0; i < here.all().size(); ++i)
        parameters.all()[i].value.copy_from(here.all()[i].value);
    }
    parameters.all()[2].frozen = freeze;
    optimizer = make_optimizer(config, parameters, {}, group);
  }

  void step(std::uint64_t step) {
    const RandomKey key{.seed = 11, .step = step};
    std::vector<double> values(parameters.count());
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = key.normal(i);
    const Tensor& gradients = parameters.gradients();
    gradients.copy_from(Tensor::of(values, gradients.shape()).to(gradients.dtype()));
    optimizer->step(1.0 / static_cast<double>(1 + step), 0.5);
  }
  void take_steps(std::uint64_t begin, std::uint64_t end) {
    for (std::uint64_t i = begin; i < end; ++i) step(i);
  }

  // Every tensor by its name: masters, values and all of the state.
  std::vector<NamedTensor> tensors() const {
    std::vector<NamedTensor> all = optimizer->state();
    for (const Parameter& parameter : parameters.all()) {
      all.push_back({parameter.name + "/master", parameter.master});
      all.push_back({parameter.name + "/value", parameter.value});
    }
    for (NamedTensor& each : all) each.tensor = each.tensor.to(Device::kCpu);
    return all;
  }
  std::vector<std::vector<double>> numbers() const {
    std::vector<std::vector<double>> all;
    for (const NamedTensor& each : tensors()) all.push_back(each.tensor.to_vector<double>());
    return all;
  }
};

// The largest difference relative to the largest number.
double difference(const Tensor& got, const Tensor& expected) {
  const auto a = got.to_vector<double>(), b = expected.to_vector<double>();
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return INFINITY;
    worst = std::max(worst, std::fabs(a[i] - b[i]));
    largest = std::max(largest, std::fabs(b[i]));
  }
  return largest > 0 ? worst / largest : worst;
}

void expect_near(const Model& got, const Model& expected, double tolerance) {
  const auto a = got.tensors(), b = expected.tensors();
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].name, b[i].name);
    // A master near the middle of two bf16 may be rounded to either.
    const bool rounded = a[i].tensor.dtype() == DType::kBFloat16;
    EXPECT_LE(difference(a[i].tensor, b[i].tensor), rounded ? 0x1p-7 : tolerance) << a[i].name;
  }
}

OptimConfig adamw() {
  OptimConfig config;
  config.kind = OptimizerKind::kAdamW;
  config.weight_decay = 0.1;
  return config;
}
OptimConfig adafactor(double momentum = 0.9, bool relative = true) {
  OptimConfig config;
  config.kind = OptimizerKind::kAdafactor;
  config.weight_decay = 0.1;
  config.adafactor.momentum = momentum;
  config.adafactor.relative = relative;
  config.groups.push_back({.pattern = "*norm*", .learning_rate = 0.02, .relative = !relative});
  return config;
}

std::vector<OptimConfig> configs() {
  OptimConfig unfactored = adafactor();
  unfactored.adafactor.factored_from = 1 << 20;
  OptimConfig clipped = adafactor(0);
  clipped.adafactor.clip_threshold = 0.25;
  return {adamw(),    adafactor(), adafactor(0), adafactor(0.9, false), adafactor(0, false),
          unfactored, clipped};
}

class GpuOptimizer : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  }
};

TEST_F(GpuOptimizer, AgreesWithTheCpu) {
  for (const OptimConfig& config : configs())
    for (const DType compute : {DType::kFloat64, DType::kFloat32, DType::kBFloat16}) {
      SCOPED_TRACE(text(config.kind == OptimizerKind::kAdamW ? "adamw" : "adafactor", " momentum ",
                        config.adafactor.momentum, " relative ", config.adafactor.relative, " ",
                        compute));
      Model cpu(config, compute, Device::kCpu), gpu(config, compute, Device::kCuda);
      cpu.take_steps(0, 4);
      gpu.take_steps(0, 4);
      expect_near(gpu, cpu, compute == DType::kFloat64 ? 1e-12 : 1e-5);
    }
}

TEST_F(GpuOptimizer, AgreesWithTheCpuOnPartsOfParameters) {
  const TwinGroup twins;
  for (const OptimConfig& config : configs())
    for (const DType compute : {DType::kFloat64, DType::kFloat32}) {
      SCOPED_TRACE(text("factored from ", config.adafactor.factored_from, " ", compute));
      Model cpu(config, compute, Device::kCpu, false, &twins);
      Model gpu(config, compute, Device::kCuda, false, &twins);
      cpu.take_steps(0, 4);
      gpu.take_steps(0, 4);
      expect_near(gpu, cpu, compute == DType::kFloat64 ? 1e-12 : 1e-5);
    }
}

TEST_F(GpuOptimizer, WritesValuesThatAreTheMastersRounded) {
  for (const OptimConfig& config : {adamw(), adafactor()}) {
    Model gpu(config, DType::kBFloat16, Device::kCuda);
    gpu.take_steps(0, 2);
    for (const Parameter& parameter : gpu.parameters.all()) {
      const Tensor value = parameter.value.to(Device::kCpu);
      const Tensor master = parameter.master.to(Device::kCpu);
      EXPECT_EQ(value.to_vector<float>(), master.to(value.dtype()).to_vector<float>())
          << parameter.name;
    }
  }
}

TEST_F(GpuOptimizer, RepeatsItselfByteForByte) {
  for (const OptimConfig& config : configs()) {
    Model first(config, DType::kBFloat16, Device::kCuda);
    Model second(config, DType::kBFloat16, Device::kCuda);
    first.take_steps(0, 3);
    second.take_steps(0, 3);
    EXPECT_EQ(first.numbers(), second.numbers());
  }
}

TEST_F(GpuOptimizer, ChangesNothingWhereTheScaleIsNotFinite) {
  for (const OptimConfig& config : configs()) {
    Model gpu(config, DType::kBFloat16, Device::kCuda);
    gpu.take_steps(0, 2);
    const auto before = gpu.numbers();
    for (const double scale : {NAN, INFINITY, -INFINITY}) gpu.optimizer->step(1, scale);
    const Tensor condition = Tensor::of(std::vector<float>{NAN}, {}).to(Device::kCuda);
    gpu.optimizer->step(1, gradient_scale(gpu.parameters, std::vector{condition}, 1).scale);
    EXPECT_EQ(gpu.numbers(), before);
    EXPECT_EQ(gpu.optimizer->steps(), 6);

    gpu.optimizer->restore_steps(2);
    gpu.take_steps(2, 3);
    Model unharmed(config, DType::kBFloat16, Device::kCuda);
    unharmed.take_steps(0, 3);
    EXPECT_EQ(gpu.numbers(), unharmed.numbers());
  }
}

TEST_F(GpuOptimizer, LeavesFrozenParametersAlone) {
  for (const OptimConfig& config : {adamw(), adafactor()}) {
    Model gpu(config, DType::kBFloat16, Device::kCuda, true);
    Model cpu(config, DType::kBFloat16, Device::kCpu, true);
    const Parameter& frozen = gpu.parameters.all()[2];
    const auto before = frozen.master.to(Device::kCpu).to_vector<float>();
    gpu.take_steps(0, 2);
    cpu.take_steps(0, 2);
    EXPECT_EQ(frozen.master.to(Device::kCpu).to_vector<float>(), before);
    expect_near(gpu, cpu, 1e-5);
  }
}

TEST_F(GpuOptimizer, TakesMoreParametersThanOneTableHolds) {
  std::vector<ParameterSpec> many;
  for (int i = 0; i < 1200; ++i)
    many.push_back({.name = text("p", i), .shape = {i % 3 == 0 ? 4 : 130, 130}, .deviation = 1});
  for (const OptimConfig& config : {adamw(), adafactor()}) {
    Parameters here(many, DType::kFloat32, Device::kCpu);
    Parameters there(many, DType::kFloat32, Device::kCuda);
    here.initialise(3);
    there.masters().copy_from(here.masters());
    here.gradients().copy_from(here.masters());
    there.gradients().copy_from(here.masters());
    make_optimizer(config, here)->step(1);
    make_optimizer(config, there)->step(1);
    EXPECT_LE(difference(there.masters().to(Device::kCpu), here.masters()), 1e-5);
  }
}

TEST_F(GpuOptimizer, AsksTheSystemForNothingAfterItsFirstStep) {
  for (const OptimConfig& config : configs()) {
    Model gpu(config, DType::kBFloat16, Device::kCuda);
    gpu.step(0);
    const auto before = memory_statistics(Device::kCuda).system_allocations;
    gpu.take_steps(1, 4);
    EXPECT_EQ(memory_statistics(Device::kCuda).system_allocations, before);
  }
}

}  // namespace
}  // namespace infini
