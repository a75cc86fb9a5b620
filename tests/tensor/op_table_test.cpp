// What every op promises, asked of each row of the table.
#include "tensor/parallel.h"
#include "tests/tensor/op_run.h"

namespace infini {
namespace {

class OpTable : public testing::TestWithParam<OpCase> {};

TEST_P(OpTable, EqualsPlainLoopsInFp64) {
  const std::vector<Tensor> inputs = inputs_of(GetParam(), DType::kFloat64);
  const Arrays plain = arrays(inputs);
  expect_near(GetParam().op(inputs), GetParam().expected(plain, plain), 1e-12, "output");
}

TEST_P(OpTable, HasTheGradientsOfFiniteDifferences) {
  const OpCase& row = GetParam();
  const std::vector<Tensor> inputs = inputs_of(row, DType::kFloat64);
  const Arrays gradients = arrays(run(row, inputs).gradients), constant = arrays(inputs);
  const auto objective = [&](const Arrays& in) {
    const Arrays outputs = row.expected(in, constant);
    double sum = 0;
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      const Array factors = upstream(row, o, static_cast<std::int64_t>(outputs[o].size()));
      for (std::size_t i = 0; i < factors.size(); ++i) sum += factors[i] * outputs[o][i];
    }
    return sum;
  };
  for (std::size_t input = 0; input < inputs.size(); ++input) {
    Arrays moved = constant;
    const RandomKey key{.seed = 5, .site = static_cast<std::uint32_t>(input)};
    const double size = std::max(1.0, largest(gradients[input]));
    for (int n = 0; n < row.differences; ++n) {
      const std::size_t i = key.below(n, moved[input].size());
      double& value = moved[input][i];
      const double before = value;
      if (before == 0) continue;  // emptiness itself: there the function has a step
      constexpr double kStep = 1e-5;
      value = before + kStep;
      const double above = objective(moved);
      value = before - kStep;
      const double below = objective(moved);
      value = before;
      EXPECT_NEAR(gradients[input][i], (above - below) / (2 * kStep), 1e-6 * size)
          << "element " << i << " of input " << input;
    }
  }
}

// Of the largest number: fp32 rounds to 6e-8 and bf16 to 4e-3, a few times on the way; a sum over a
// vocabulary of 131073 in fp32 is the least exact.
TEST_P(OpTable, StaysNearFp64InShorterTypes) {
  const OpCase& row = GetParam();
  for (const auto& [dtype, tolerance] :
       {std::pair{DType::kFloat32, 1e-5}, std::pair{DType::kBFloat16, 1.5e-2}}) {
    SCOPED_TRACE(dtype);
    const std::vector<Tensor> inputs = inputs_of(row, dtype);
    std::vector<Tensor> same;
    for (const Tensor& input : inputs) same.push_back(input.to(DType::kFloat64));
    const Results exact = run(row, same), got = run(row, inputs);
    expect_near(got.outputs, arrays(exact.outputs), tolerance, "output");
    expect_near(got.gradients, arrays(exact.gradients), tolerance, "gradient");
  }
}

TEST_P(OpTable, GivesTheSameBytesEveryTimeAndOnAnyNumberOfThreads) {
  const OpCase& row = GetParam();
  for (const DType dtype : kTypes) {
    SCOPED_TRACE(dtype);
    const std::vector<Tensor> inputs = inputs_of(row, dtype);
    const Results first = run(row, inputs);
#ifdef _OPENMP
    const int usual = omp_get_max_threads();
    for (const int threads : {1, 2, 3, usual}) {
      omp_set_num_threads(threads);
#else
    for (const int threads : {1, 1}) {
#endif
      SCOPED_TRACE(text(threads, " threads"));
      const Results again = run(row, inputs);
      expect_same_bytes(again.outputs, first.outputs);
      expect_same_bytes(again.gradients, first.gradients);
    }
  }
}

TEST_P(OpTable, AddsToGradientsThatStandThere) {
  const OpCase& row = GetParam();
  for (const auto& [dtype, tolerance] :
       {std::pair{DType::kFloat64, 1e-13}, std::pair{DType::kFloat32, 1e-6},
        std::pair{DType::kBFloat16, 1.5e-2}}) {
    SCOPED_TRACE(dtype);
    const std::vector<Tensor> inputs = inputs_of(row, dtype);
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

// As for what is frozen.
TEST_P(OpTable, GivesAGradientThatIsAskedForAlone) {
  expect_gradients_alone(GetParam(), inputs_of(GetParam(), DType::kFloat64), 1e-13);
}

INSTANTIATE_TEST_SUITE_P(Ops, OpTable, testing::ValuesIn(op_table()), op_test_name);

}  // namespace
}  // namespace infini
