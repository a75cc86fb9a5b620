// What every op promises on a GPU: the numbers of the CPU, the same bytes every time.
#include "tensor/system_memory.h"
#include "tests/tensor/op_run.h"

namespace infini {
namespace {

class GpuOpTable : public testing::TestWithParam<OpCase> {
 protected:
  void SetUp() override {
    if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  }
};

// What is 0 on the CPU because equal numbers cancel is a rounding error here.
constexpr double kLeast = 0.1;

// Of the largest number; sums are taken in another order than on the CPU.
const std::pair<DType, double> kTolerances[] = {
    {DType::kFloat64, 1e-11}, {DType::kFloat32, 1e-5}, {DType::kBFloat16, 1.5e-2}};

TEST_P(GpuOpTable, EqualsTheCpuForwardsAndBackwards) {
  const OpCase& row = GetParam();
  for (const auto& [dtype, tolerance] : kTolerances) {
    SCOPED_TRACE(dtype);
    const Results here = run(row, inputs_of(row, dtype));
    const Results there = run(row, inputs_of(row, dtype, Device::kCuda));
    for (const Tensor& output : there.outputs) EXPECT_EQ(output.device(), Device::kCuda);
    expect_near(there.outputs, arrays(here.outputs), tolerance, "output", kLeast);
    expect_near(there.gradients, arrays(here.gradients), tolerance, "gradient", kLeast);
  }
}

// As for what is frozen.
TEST_P(GpuOpTable, GivesAGradientThatIsAskedForAlone) {
  const OpCase& row = GetParam();
  for (const auto& [dtype, tolerance] : kTolerances) {
    SCOPED_TRACE(dtype);
    expect_gradients_alone(row, inputs_of(row, dtype, Device::kCuda), tolerance, kLeast);
  }
}

TEST_P(GpuOpTable, GivesTheSameBytesEveryTime) {
  const OpCase& row = GetParam();
  for (const DType dtype : kTypes) {
    SCOPED_TRACE(dtype);
    const std::vector<Tensor> inputs = inputs_of(row, dtype, Device::kCuda);
    const Results first = run(row, inputs);
    for (int i = 0; i < 3; ++i) {
      const Results again = run(row, inputs);
      expect_same_bytes(again.outputs, first.outputs);
      expect_same_bytes(again.gradients, first.gradients);
    }
  }
}

TEST_P(GpuOpTable, AddsToGradientsThatStandThere) {
  const OpCase& row = GetParam();
  for (const auto& [dtype, tolerance] : kTolerances) {
    SCOPED_TRACE(dtype);
    const std::vector<Tensor> inputs = inputs_of(row, dtype, Device::kCuda);
    const Results fresh = run(row, inputs);
    Arrays stands, sum;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      stands.push_back(
          Tensor::of(random_values(inputs[i].size(), -2, 2, 200 + i), {inputs[i].size()})
              .to(inputs[i].dtype())
              .to_vector<double>());
      sum.push_back(reference::add(stands[i], fresh.gradients[i].to_vector<double>()));
    }
    expect_near(run(row, inputs, &stands).gradients, sum, tolerance, "gradient");
  }
}

INSTANTIATE_TEST_SUITE_P(GpuOps, GpuOpTable, testing::ValuesIn(op_table()), op_test_name);

}  // namespace
}  // namespace infini
