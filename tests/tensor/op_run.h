// Running rows of the op table and comparing what comes out.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "tensor/random.h"
#include "tests/tensor/op_table.h"

namespace infini {

using reference::Array;
using reference::Arrays;

inline const DType kTypes[] = {DType::kFloat64, DType::kFloat32, DType::kBFloat16};

inline Array random_values(std::int64_t count, double low, double high, std::uint32_t site) {
  const RandomKey key{.seed = 11, .site = site};
  Array values(count);
  for (std::int64_t i = 0; i < count; ++i) values[i] = low + (high - low) * key.uniform(i);
  return values;
}

// The inputs of a row as they are in `dtype`, rounded once.
inline std::vector<Tensor> inputs_of(const OpCase& row, DType dtype, Device device = Device::kCpu) {
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < row.inputs.size(); ++i) {
    const Input& input = row.inputs[i];
    Array values = random_values(input.shape.size(), input.low, input.high, i);
    if (input.edit) input.edit(values);
    inputs.push_back(Tensor::of(values, input.shape)
                         .to(input.role == Role::kState ? accumulator_of(dtype) : dtype)
                         .to(device));
  }
  return inputs;
}

struct Results {
  std::vector<Tensor> outputs, gradients;
};

// Random gradients of the outputs, the same ones for every type (1 for a loss).
inline Array upstream(const OpCase& row, std::size_t output, std::int64_t count) {
  if (row.is_loss) return Array(count, output == 0 ? 1.0 : 0.0);
  return random_values(count, -1, 1, 100 + output);
}

constexpr std::size_t kEveryInput = static_cast<std::size_t>(-1);

// Runs the op forwards and backwards. Gradients are added to buffers that hold `stands`, or,
// without it, left to the tape. Where `only` names an input, that of the others is not asked for.
inline Results run(const OpCase& row, const std::vector<Tensor>& inputs,
                   const Arrays* stands = nullptr, std::size_t only = kEveryInput) {
  Tape tape;
  std::vector<Tensor> watched;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const bool weight = row.inputs[i].role == Role::kWeight;
    if (only != kEveryInput && only != i) {
      watched.push_back(inputs[i]);
      continue;
    }
    const DType type = weight ? accumulator_of(inputs[i].dtype()) : inputs[i].dtype();
    if (stands)
      watched.push_back(tape.watch(
          inputs[i], Tensor::of((*stands)[i], inputs[i].shape()).to(type).to(inputs[i].device())));
    else if (weight)
      watched.push_back(
          tape.watch(inputs[i], Tensor::zeros(inputs[i].shape(), type, inputs[i].device())));
    else
      watched.push_back(tape.watch(inputs[i]));
  }
  Results results{.outputs = row.op(watched), .gradients = {}};
  for (std::size_t i = 0; i < results.outputs.size(); ++i) {
    const Tensor& output = results.outputs[i];
    if (output.tape())
      tape.seed(output, Tensor::of(upstream(row, i, output.size()), output.shape())
                            .to(output.dtype())
                            .to(output.device()));
  }
  tape.backward();
  for (const Tensor& input : watched)
    results.gradients.push_back(input.tape() ? tape.gradient(input) : Tensor{});
  return results;
}

inline Arrays arrays(const std::vector<Tensor>& tensors) {
  Arrays result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.to_vector<double>());
  return result;
}

inline double largest(const Array& values) {
  double result = 0;
  for (const double value : values) result = std::max(result, std::fabs(value));
  return result;
}

// The largest difference, in units of the largest number expected, or of `least` where that is
// larger. NaN is infinitely far.
inline double distance(const Array& got, const Array& expected, double least = 1e-30) {
  EXPECT_EQ(got.size(), expected.size());
  double result = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::fabs(got[i] - expected[i]);
    result = std::isnan(difference) ? INFINITY : std::max(result, difference);
  }
  return result / std::max(largest(expected), least);
}

inline void expect_near(const std::vector<Tensor>& got, const Arrays& expected, double tolerance,
                        const char* what, double least = 1e-30) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_LE(distance(got[i].to_vector<double>(), expected[i], least), tolerance)
        << what << " " << i;
}

// The gradient of each input is the same whether it is asked for alone or with all.
inline void expect_gradients_alone(const OpCase& row, const std::vector<Tensor>& inputs,
                                   double tolerance, double least = 1e-30) {
  const Results all = run(row, inputs);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    SCOPED_TRACE(text("input ", i));
    const Tensor alone = run(row, inputs, nullptr, i).gradients[i];
    ASSERT_EQ(static_cast<bool>(alone), static_cast<bool>(all.gradients[i]));
    if (alone) expect_near({alone}, arrays({all.gradients[i]}), tolerance, "gradient", least);
  }
}

inline void expect_same_bytes(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    const Tensor left = a[i].to(Device::kCpu), right = b[i].to(Device::kCpu);
    EXPECT_TRUE(left.bytes() == right.bytes() &&
                std::equal(left.raw(), left.raw() + left.bytes(), right.raw()))
        << "tensor " << i;
  }
}

inline std::string op_test_name(const testing::TestParamInfo<OpCase>& info) {
  std::string name = info.param.name;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

}  // namespace infini
