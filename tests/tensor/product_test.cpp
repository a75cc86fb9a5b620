#include "tensor/ops/product.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <thread>

#include "tensor/ops/gemm.h"
#include "tensor/parallel.h"
#include "tensor/random.h"

namespace infini {
namespace {

Tensor random_tensor(const Shape& shape, DType dtype, std::uint32_t site) {
  const RandomKey key{.seed = 3, .site = site};
  std::vector<double> values(shape.size());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 2 * key.uniform(i) - 1;
  return Tensor::of(values, shape).to(dtype);
}

std::vector<std::byte> bytes_of_tensor(const Tensor& tensor) {
  return {tensor.raw(), tensor.raw() + tensor.bytes()};
}

struct Sizes {
  std::int64_t m, n, k;
};

Product random_product(const Sizes& sizes, int layout, DType factors, DType result) {
  const auto [m, n, k] = sizes;
  const bool ta = layout & 1, tb = layout & 2, accumulate = layout & 4;
  return {.a = random_tensor(ta ? Shape{k, m} : Shape{m, k}, factors, 0),
          .b = random_tensor(tb ? Shape{n, k} : Shape{k, n}, factors, 1),
          .c = random_tensor({m, n}, result, 2),
          .transpose_a = ta,
          .transpose_b = tb,
          .accumulate = accumulate};
}

// op(A) op(B) (+ C) and the sum of the sizes of its terms, in fp64 by gemm (which has its own
// test).
std::pair<std::vector<double>, std::vector<double>> expected(const Product& product,
                                                             const Sizes& sizes) {
  const auto [m, n, k] = sizes;
  auto a = product.a.to_vector<double>(), b = product.b.to_vector<double>();
  auto c = product.c.to_vector<double>();
  const auto run = [&](std::vector<double>& into) {
    gemm(product.transpose_a, product.transpose_b, m, n, k, a.data(), product.transpose_a ? m : k,
         b.data(), product.transpose_b ? k : n, into.data(), n, product.accumulate);
  };
  auto size = c;
  run(c);
  for (auto* values : {&a, &b, &size})
    for (double& value : *values) value = std::fabs(value);
  run(size);
  return {c, size};
}

const Sizes kSizes[] = {{3, 5, 7},    {64, 96, 32},   {130, 300, 70}, {257, 129, 513},
                        {1, 100, 50}, {300, 1, 1000}, {40, 40, 1},    {0, 6, 5},
                        {6, 5, 0},    {512, 256, 64}};

TEST(Multiply, EqualsTheProductInEveryLayoutAndType) {
  struct Types {
    DType factors, result;
    double tolerance;
  };
  const Types types[] = {{DType::kFloat64, DType::kFloat64, 1e-14},
                         {DType::kFloat32, DType::kFloat32, 1e-6},
                         {DType::kBFloat16, DType::kFloat32, 1e-6},
                         {DType::kBFloat16, DType::kBFloat16, 4e-3}};
  for (const auto& [factors, result, tolerance] : types)
    for (const Sizes& sizes : kSizes)
      for (int layout = 0; layout < 8; ++layout) {
        const Product product = random_product(sizes, layout, factors, result);
        const auto [values, magnitudes] = expected(product, sizes);
        multiply(product);
        const auto got = product.c.to_vector<double>();
        for (std::size_t i = 0; i < got.size(); ++i)
          ASSERT_LE(std::fabs(got[i] - values[i]), tolerance * magnitudes[i] + 1e-30)
              << factors << " to " << result << ", " << product.a.shape() << " by "
              << product.b.shape() << ", layout " << layout << ", element " << i;
      }
}

TEST(Multiply, OfABatchIsTheProductOfEach) {
  for (int layout = 0; layout < 8; ++layout) {
    Product batch = random_product({3 * 5, 7, 4}, 0, DType::kFloat32, DType::kFloat32);
    batch.transpose_a = layout & 1;
    batch.transpose_b = layout & 2;
    batch.accumulate = layout & 4;
    batch.a = batch.a.reshape(batch.transpose_a ? Shape{3, 4, 5} : Shape{3, 5, 4});
    batch.b =
        random_tensor(batch.transpose_b ? Shape{3, 7, 4} : Shape{3, 4, 7}, DType::kFloat32, 4);
    batch.c = batch.c.reshape({3, 5, 7});
    const auto matrix = [](const Tensor& tensor, std::int64_t i) {
      return tensor.slice(i, 1).reshape({tensor.shape()[1], tensor.shape()[2]});
    };
    std::vector<Product> each(3, batch);
    for (int i = 0; i < 3; ++i) {
      each[i].a = matrix(batch.a, i);
      each[i].b = matrix(batch.b, i);
      each[i].c = matrix(batch.c, i).clone();
      multiply(each[i]);
    }
    multiply(batch);
    for (int i = 0; i < 3; ++i)
      EXPECT_EQ(bytes_of_tensor(matrix(batch.c, i)), bytes_of_tensor(each[i].c)) << layout;
  }
}

TEST(Multiply, GivesTheSameBytesEveryTimeAndFromEveryThread) {
  for (const DType dtype : {DType::kFloat64, DType::kFloat32, DType::kBFloat16}) {
    const Product product = random_product({300, 200, 150}, 2, dtype, accumulator_of(dtype));
    multiply(product);
    const auto first = bytes_of_tensor(product.c);
    std::vector<Product> others(4, product);
    {
      std::vector<std::jthread> threads;
      for (Product& other : others) {
        other.c = Tensor::empty_like(product.c);
        threads.emplace_back([&other] { multiply(other); });
      }
    }
    for (const Product& other : others) EXPECT_EQ(first, bytes_of_tensor(other.c)) << dtype;
  }
}

TEST(Multiply, RunsInsideAParallelLoop) {
  const Sizes sizes{64, 48, 200};
  const Product product = random_product(sizes, 0, DType::kFloat32, DType::kFloat32);
  const auto [values, magnitudes] = expected(product, sizes);
  std::vector<Product> copies(6, product);
  for (Product& copy : copies) copy.c = product.c.clone();
  parallel_for(6, [&](std::int64_t i) { multiply(copies[i]); });
  for (const Product& copy : copies) {
    const auto got = copy.c.to_vector<double>();
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got[i], values[i], 1e-6 * magnitudes[i] + 1e-30);
  }
}

TEST(Multiply, AsksTheSystemForNothingOnceWarm) {
  const Product product = random_product({256, 256, 256}, 1, DType::kFloat32, DType::kFloat32);
  multiply(product);
  const auto before = memory_statistics(Device::kCpu).system_allocations;
  for (int i = 0; i < 5; ++i) multiply(product);
  EXPECT_EQ(memory_statistics(Device::kCpu).system_allocations, before);
}

TEST(Multiply, RefusesMatricesThatDoNotFit) {
  const auto zeros = [](const Shape& shape, DType dtype = DType::kFloat32) {
    return Tensor::zeros(shape, dtype);
  };
  const auto message = [](const Product& product) -> std::string {
    try {
      multiply(product);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message({.a = zeros({2, 3}), .b = zeros({4, 5}), .c = zeros({2, 5})}),
            "multiply: op(A) is [2, 3] and op(B) is [4, 5], which do not make [2, 5]");
  EXPECT_EQ(message({.a = zeros({2, 3}), .b = zeros({3, 5}), .c = zeros({5, 2})}),
            "multiply: op(A) is [2, 3] and op(B) is [3, 5], which do not make [5, 2]");
  EXPECT_EQ(message({.a = zeros({2, 2, 3}), .b = zeros({1, 3, 5}), .c = zeros({2, 2, 5})}),
            "multiply: a factor is [1, 3, 5], the result [2, 2, 5]");
  EXPECT_EQ(message({.a = zeros({2, 3}), .b = zeros({3, 5}, DType::kBFloat16), .c = zeros({2, 5})}),
            "multiply: A is f32, B is bf16, C is f32");
}

// sum(linear(x, weight) * weights_of_sum), a function whose derivatives are known by differences
// too.
double objective(const Tensor& x, const Tensor& weight, const std::vector<double>& factors) {
  const auto y = linear(x, weight).to_vector<double>();
  double sum = 0;
  for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * factors[i];
  return sum;
}

TEST(Linear, HasTheGradientsOfFiniteDifferences) {
  const Tensor x = random_tensor({2, 3, 5}, DType::kFloat64, 0);
  const Tensor weight = random_tensor({4, 5}, DType::kFloat64, 1);
  const Tensor dy = random_tensor({2, 3, 4}, DType::kFloat64, 2);
  const auto factors = dy.to_vector<double>();

  Tape tape;
  const Tensor watched_x = tape.watch(x), watched_weight = tape.watch(weight);
  const Tensor y = linear(watched_x, watched_weight);
  EXPECT_EQ(y.shape(), (Shape{2, 3, 4}));
  tape.seed(y, dy);
  tape.backward();

  const auto expect_differences = [&](const Tensor& input, const Tensor& gradient) {
    constexpr double kStep = 1e-4;
    for (std::int64_t i = 0; i < input.size(); ++i) {
      double& value = input.data<double>()[i];
      const double before = value;
      value = before + kStep;
      const double above = objective(x, weight, factors);
      value = before - kStep;
      const double below = objective(x, weight, factors);
      value = before;
      EXPECT_NEAR(gradient.data<double>()[i], (above - below) / (2 * kStep), 1e-9);
    }
  };
  expect_differences(x, tape.gradient(watched_x));
  expect_differences(weight, tape.gradient(watched_weight));
}

TEST(Linear, AddsIntoFloatGradientsOfBFloatWeights) {
  const Tensor x = random_tensor({6, 10}, DType::kBFloat16, 0);
  const Tensor weight = random_tensor({7, 10}, DType::kBFloat16, 1);
  const Tensor dy = random_tensor({6, 7}, DType::kBFloat16, 2);
  const Tensor gradient = random_tensor({7, 10}, DType::kFloat32, 3);
  auto expected_gradient = gradient.to_vector<double>();
  const auto a = dy.to_vector<double>(), b = x.to_vector<double>();
  gemm(true, false, 7, 10, 6, a.data(), 7, b.data(), 10, expected_gradient.data(), 10, true);

  Tape tape;
  const Tensor y = linear(x, tape.watch(weight, gradient));
  tape.seed(y, dy);
  tape.backward();
  const auto got = gradient.to_vector<double>();
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected_gradient[i], 1e-5);
}

TEST(Linear, SumsTheGradientsOfAnInputUsedTwice) {
  const Tensor x = random_tensor({3, 5}, DType::kFloat64, 0);
  const Tensor weight = random_tensor({4, 5}, DType::kFloat64, 1);
  const Tensor dy = random_tensor({3, 4}, DType::kFloat64, 2);
  const auto gradient_of_x = [&](int uses) {
    Tape tape;
    const Tensor watched = tape.watch(x);
    for (int i = 0; i < uses; ++i) tape.seed(linear(watched, weight), dy);
    tape.backward();
    return tape.gradient(watched).to_vector<double>();
  };
  const auto once = gradient_of_x(1), twice = gradient_of_x(2);
  for (std::size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(twice[i], 2 * once[i], 1e-14);
}

TEST(Linear, AcceptsNoRows) {
  const Tensor weight = random_tensor({4, 5}, DType::kFloat32, 1);
  EXPECT_EQ(linear(Tensor::zeros({0, 5}, DType::kFloat32), weight).shape(), (Shape{0, 4}));
}

TEST(Linear, RefusesAnInputOfAnotherWidth) {
  const Tensor weight = random_tensor({4, 5}, DType::kFloat32, 1);
  EXPECT_THAT(
      [&] {
        linear(Tensor::zeros({2, 6}, DType::kFloat32), weight);
      },
      testing::ThrowsMessage<Error>("linear: x is [2, 6], expected [..., 5]"));
}

}  // namespace
}  // namespace infini
