#include "tensor/recompute.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tensor/ops/activation.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/product.h"

namespace infini {
namespace {

constexpr std::int64_t kRows = 64, kWidth = 32, kInner = 256;

struct Results {
  std::vector<double> y, dx, dparameters;
  std::int64_t kept_bytes = 0;  // between forward and backward
  int calls = 0;
};

// Three residual feed-forward parts, each recomputed or not; the parts also take an empty tensor
// and hand out what nobody uses.
Results run(bool recomputed) {
  Parameters parameters({{.name = "up", .shape = {kInner, kWidth}, .deviation = 0.2},
                         {.name = "down", .shape = {kWidth, kInner}, .deviation = 0.1}},
                        DType::kFloat32, Device::kCpu);
  parameters.initialise(1);
  std::vector<float> values(kRows * kWidth);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(RandomKey{.seed = 2}.normal(i));

  Results results;
  const Recomputed part = [&](const Pass& pass, const std::vector<Tensor>& in) {
    ++results.calls;
    EXPECT_FALSE(in[1]);
    const Tensor inner = gelu(linear(in[0], pass(parameters["up"])));
    return std::vector<Tensor>{add(in[0], linear(inner, pass(parameters["down"]))), inner};
  };
  const std::int64_t before = memory_statistics(Device::kCpu).in_use_bytes;
  Tape tape;
  const Pass pass{.tape = &tape};
  const Tensor x = tape.watch(Tensor::of(values, {kRows, kWidth}));
  Tensor y = x;
  for (int i = 0; i < 3; ++i) {
    const std::vector<Tensor> in{y, Tensor{}};
    y = (recomputed ? recompute(pass, in, part) : part(pass, in))[0];
  }
  results.kept_bytes = memory_statistics(Device::kCpu).in_use_bytes - before;
  tape.seed(y, Tensor::of(values, {kRows, kWidth}));
  tape.backward();
  results.y = y.to_vector<double>();
  results.dx = tape.gradient(x).to_vector<double>();
  results.dparameters = parameters.gradients().to_vector<double>();
  return results;
}

TEST(Recompute, GivesTheSameBytesWithLessMemory) {
  const Results kept = run(false), repeated = run(true);
  EXPECT_EQ(repeated.y, kept.y);
  EXPECT_EQ(repeated.dx, kept.dx);
  EXPECT_EQ(repeated.dparameters, kept.dparameters);
  EXPECT_EQ(kept.calls, 3);
  EXPECT_EQ(repeated.calls, 6);
  constexpr std::int64_t kInnerBytes = kRows * kInner * 4;
  EXPECT_GE(kept.kept_bytes, 3 * 2 * kInnerBytes);  // before and after each activation
  EXPECT_LE(repeated.kept_bytes, 2 * kInnerBytes);
}

TEST(Recompute, OnlyCallsThePieceWhenNothingIsRecorded) {
  int calls = 0;
  const auto outputs = recompute(Pass{}, {Tensor::zeros({2}, DType::kFloat32)},
                                 [&](const Pass& pass, const std::vector<Tensor>& in) {
                                   ++calls;
                                   EXPECT_EQ(pass.tape, nullptr);
                                   return std::vector<Tensor>{relu(in[0])};
                                 });
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(outputs[0].tape(), nullptr);
}

TEST(Recompute, AddsTheGradientsOfAnInputGivenTwice) {
  Tape tape;
  const Tensor x = tape.watch(Tensor::of(std::vector<double>{1, -1}, {2}));
  const auto outputs =
      recompute(Pass{.tape = &tape}, {x, x}, [](const Pass&, const std::vector<Tensor>& in) {
        return std::vector<Tensor>{add(relu(in[0]), in[1])};
      });
  tape.seed(outputs[0], Tensor::of(std::vector<double>{3, 5}, {2}));
  tape.backward();
  EXPECT_THAT(tape.gradient(x).to_vector<double>(), testing::ElementsAre(6, 5));
}

TEST(Recompute, PassesTheRandomKeyOn) {
  std::vector<std::uint64_t> seen;
  Tape tape;
  const Pass pass{.tape = &tape, .training = true, .key = {.seed = 8, .step = 9}};
  const auto outputs = recompute(pass, {tape.watch(Tensor::zeros({1}, DType::kFloat64))},
                                 [&](const Pass& inner, const std::vector<Tensor>& in) {
                                   EXPECT_TRUE(inner.training);
                                   seen.push_back(inner.key.bits(0));
                                   return std::vector<Tensor>{relu(in[0])};
                                 });
  tape.backward(outputs[0]);
  EXPECT_THAT(seen, testing::ElementsAre(pass.key.bits(0), pass.key.bits(0)));
}

}  // namespace
}  // namespace infini
