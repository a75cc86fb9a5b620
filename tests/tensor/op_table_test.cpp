// What every op promises, asked of each row of the table.
#include "tests/tensor/op_table.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tensor/parallel.h"
#include "tensor/random.h"

namespace infini {
namespace {

using reference::Array;
using reference::Arrays;

const DType kTypes[] = {DType::kFloat64, DType::kFloat32, DType::kBFloat16};

Array random_values(std::int64_t count, double low, double high, std::uint32_t site) {
  const RandomKey key{.seed = 11, .site = site};
  Array values(count);
  for (std::int64_t i = 0; i < count; ++i) values[i] = low + (high - low) * key.uniform(i);
  return values;
}

// The inputs of a row as they are in `dtype`, rounded once.
std::vector<Tensor> inputs_of(const OpCase& row, DType dtype) {
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < row.inputs.size(); ++i) {
    const Input& input = row.inputs[i];
    Array values = random_values(input.shape.size(), input.low, input.high, i);
    if (input.edit) input.edit(values);
    inputs.push_back(Tensor::of(values, input.shape)
                         .to(input.role == Role::kState ? accumulator_of(dtype) : dtype));
  }
  return inputs;
}

struct Results {
  std::vector<Tensor> outputs, gradients;
};

// Random gradients of the outputs, the same ones for every type (1 for a loss).
Array upstream(const OpCase& row, std::size_t output, std::int64_t count) {
  if (row.is_loss) return Array(count, output == 0 ? 1.0 : 0.0);
  return random_values(count, -1, 1, 100 + output);
}

// Runs the op forwards and backwards. Gradients are added to buffers that hold `stands`, or,
// without it, left to the tape.
Results run(const OpCase& row, const std::vector<Tensor>& inputs, const Arrays* stands = nullptr) {
  Tape tape;
  std::vector<Tensor> watched;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const bool weight = row.inputs[i].role == Role::kWeight;
    const DType type = weight ? accumulator_of(inputs[i].dtype()) : inputs[i].dtype();
    if (stands)
      watched.push_back(
          tape.watch(inputs[i], Tensor::of((*stands)[i], inputs[i].shape()).to(type)));
    else if (weight)
      watched.push_back(tape.watch(inputs[i], Tensor::zeros(inputs[i].shape(), type)));
    else
      watched.push_back(tape.watch(inputs[i]));
  }
  Results results{.outputs = row.op(watched), .gradients = {}};
  for (std::size_t i = 0; i < results.outputs.size(); ++i) {
    const Tensor& output = results.outputs[i];
    if (output.tape())
      tape.seed(output,
                Tensor::of(upstream(row, i, output.size()), output.shape()).to(output.dtype()));
  }
  tape.backward();
  for (const Tensor& input : watched) results.gradients.push_back(tape.gradient(input));
  return results;
}

Arrays arrays(const std::vector<Tensor>& tensors) {
  Arrays result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.to_vector<double>());
  return result;
}

double largest(const Array& values) {
  double result = 0;
  for (const double value : values) result = std::max(result, std::fabs(value));
  return result;
}

// The largest difference, in units of the largest number expected. NaN is infinitely far.
double distance(const Array& got, const Array& expected) {
  EXPECT_EQ(got.size(), expected.size());
  double result = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::fabs(got[i] - expected[i]);
    result = std::isnan(difference) ? INFINITY : std::max(result, difference);
  }
  return result / std::max(largest(expected), 1e-30);
}

void expect_near(const std::vector<Tensor>& got, const Arrays& expected, double tolerance,
                 const char* what) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_LE(distance(got[i].to_vector<double>(), expected[i]), tolerance) << what << " " << i;
}

void expect_same_bytes(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    EXPECT_TRUE(a[i].bytes() == b[i].bytes() &&
                std::equal(a[i].raw(), a[i].raw() + a[i].bytes(), b[i].raw()))
        << "tensor " << i;
}

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

std::string test_name(const testing::TestParamInfo<OpCase>& info) {
  std::string name = info.param.name;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Ops, OpTable, testing::ValuesIn(op_table()), test_name);

}  // namespace
}  // namespace infini
