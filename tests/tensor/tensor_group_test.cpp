#include "tensor/tensor_group.h"

#include <gtest/gtest.h>

#include "tensor/ops/feed_forward.h"
#include "tensor/ops/head_norm.h"
#include "tensor/ops/product.h"
#include "tensor/random.h"
#include "tests/tensor/fake_groups.h"

namespace infini {
namespace {

Tensor numbers(const Shape& shape, std::uint32_t site) {
  const Tensor values = Tensor::empty(shape, DType::kFloat64);
  for (std::int64_t i = 0; i < values.size(); ++i)
    values.data<double>()[i] = RandomKey{.seed = 5, .site = site}.normal(i);
  return values;
}

// y and the gradients of x and of both weights, where dy is given.
struct Result {
  std::vector<double> y, dx, dfirst, dsecond, dresidual;
};
using Op = std::function<Tensor(const Tensor& x, const Tensor& first, const Tensor& second,
                                const Tensor& residual)>;
Result run(const Op& op) {
  Tape tape;
  const Tensor x = tape.watch(numbers({5, 4}, 1)), first = tape.watch(numbers({6, 4}, 2));
  const Tensor second = tape.watch(numbers({4, 6}, 3)), residual = tape.watch(numbers({5, 4}, 4));
  const Tensor y = op(x, first, second, residual);
  tape.seed(y, numbers(y.shape(), 9));
  tape.backward();
  const auto gradient = [&](const Tensor& of) { return tape.gradient(of).to_vector<double>(); };
  return {.y = y.to_vector<double>(),
          .dx = gradient(x),
          .dfirst = gradient(first),
          .dsecond = gradient(second),
          .dresidual = gradient(residual)};
}

void expect_near(const std::vector<double>& got, const std::vector<double>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], 1e-12);
}

const TwinGroup kTwins;
constexpr auto kOutputs = WeightSplit::By::kOutputs, kInputs = WeightSplit::By::kInputs;

// With a process that has the same half of a feed-forward part, what the whole computes is that of
// twice the second weight.
TEST(TensorGroup, SumsWhatHalvesOfAFeedForwardPartCompute) {
  const Op halves = [](const Tensor& x, const Tensor& first, const Tensor& second,
                       const Tensor& residual) {
    const Tensor inner = linear(x, first, {}, {.group = &kTwins, .by = kOutputs});
    return linear(inner, second, residual, {.group = &kTwins, .by = kInputs});
  };
  const Op whole = [](const Tensor& x, const Tensor& first, const Tensor& second,
                      const Tensor& residual) {
    const Tensor inner = linear(x, first);
    return linear(inner, second, linear(inner, second, residual));
  };
  const Result got = run(halves), expected = run(whole);
  expect_near(got.y, expected.y);
  expect_near(got.dx, expected.dx);
  expect_near(got.dresidual, expected.dresidual);
  // Gradients of weights are of this half alone.
  for (std::size_t i = 0; i < got.dfirst.size(); ++i) {
    EXPECT_NEAR(2 * got.dfirst[i], expected.dfirst[i], 1e-12);
    EXPECT_NEAR(2 * got.dsecond[i], expected.dsecond[i], 1e-12);
  }
}

TEST(TensorGroup, SumsTheSameWhereTheActivationRidesOnTheProducts) {
  const Op halves = [](const Tensor& x, const Tensor& first, const Tensor& second,
                       const Tensor& residual) {
    return gelu_feed_forward(x, first, second, residual, &kTwins);
  };
  const Op whole = [](const Tensor& x, const Tensor& first, const Tensor& second,
                      const Tensor& residual) {
    return gelu_feed_forward(x, first, second, gelu_feed_forward(x, first, second, residual));
  };
  const Result got = run(halves), expected = run(whole);
  expect_near(got.y, expected.y);
  expect_near(got.dx, expected.dx);
  expect_near(got.dresidual, expected.dresidual);
}

// The other process has as many heads with the same numbers: one weight serves all of them.
TEST(TensorGroup, SumsTheGradientsOfNormsThatItsHeadsShare) {
  const HeadLayout n{
      .batch = 1, .segments = 1, .tokens = 6, .heads = 2, .kv_heads = 1, .head_width = 4};
  const auto gradients = [&](const TensorGroup* group) {
    Tape tape;
    const Tensor qkv = tape.watch(numbers({6, 16}, 1)), query = tape.watch(numbers({4}, 2)),
                 key = tape.watch(numbers({4}, 3));
    const Tensor y = head_norm(qkv, query, key, n, 1e-6, group);
    tape.seed(y, numbers(y.shape(), 9));
    tape.backward();
    std::vector<std::vector<double>> all;
    for (const Tensor& input : {qkv, query, key})
      all.push_back(tape.gradient(input).to_vector<double>());
    return all;
  };
  const auto alone = gradients(nullptr), shared = gradients(&kTwins);
  expect_near(shared[0], alone[0]);
  for (int weight : {1, 2})
    for (std::size_t i = 0; i < alone[weight].size(); ++i)
      EXPECT_NEAR(shared[weight][i], 2 * alone[weight][i], 1e-12);
}

// x goes into two products: the first whole gradient stands when the sum of parts is added.
TEST(TensorGroup, AddsASumToWhatStandsInAGradient) {
  const auto twice = [](const TensorGroup* group, const Tensor& second_of_two) {
    return [=](const Tensor& x, const Tensor& first, const Tensor& second, const Tensor& residual) {
      const Tensor part = linear(x, first, {}, {.group = group, .by = kOutputs});
      const Tensor whole = linear(x, second_of_two);
      return linear(add(part, whole), second, residual);
    };
  };
  const Tensor other = numbers({6, 4}, 7);
  const Result got = run(twice(&kTwins, other)), once = run(twice(nullptr, other));
  const Result alone =
      run([](const Tensor& x, const Tensor& first, const Tensor& second, const Tensor& residual) {
        return linear(linear(x, first), second, residual);
      });
  for (std::size_t i = 0; i < got.dx.size(); ++i)
    EXPECT_NEAR(got.dx[i], once.dx[i] + alone.dx[i], 1e-12);
}

}  // namespace
}  // namespace infini
