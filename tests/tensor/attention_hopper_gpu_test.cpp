// Attention by the kernels for Hopper against the portable ones in fp32, from the same numbers.
#ifdef INFINI_CUDA

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "tensor/cuda.h"
#include "tensor/ops/attention_cudnn.h"
#include "tensor/ops/attention_hopper.h"
#include "tensor/ops/rotary.h"
#include "tensor/random.h"
#include "tensor/system_memory.h"
#include "tests/tensor/head_checks.h"

namespace infini {
namespace {

constexpr double kScale = 0.09;

class GpuHopperAttention : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
    const auto [major, minor] = compute_capability();
    if (!is_hopper())
      GTEST_SKIP() << "this device is of capability " << major << "." << minor << ", not 9.0";
  }
};
using GpuHopperAttentionSpeed = GpuHopperAttention;

Tensor random_tensor(const Shape& shape, std::uint32_t site) {
  std::vector<float> values(shape.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(RandomKey{.seed = 7, .site = site}.normal(i));
  return Tensor::of(values, shape).to(DType::kBFloat16);
}
Tensor bf16(const Tensor& tensor) { return tensor.to(DType::kBFloat16); }
Tensor fp32(const Tensor& tensor) { return tensor.to(DType::kFloat32); }

// What the backward pass is asked, in bf16; y and log_sum from the portable kernels.
AttentionKernels::AttentionGrad question(const HeadLayout& n) {
  const auto random = [](std::int64_t rows, std::int64_t width, std::uint32_t site) {
    return random_tensor({rows, width}, site).to(Device::kCuda);
  };
  AttentionKernels::AttentionGrad args{
      .rotated = random(n.rows(), n.rotated_width(), 0),
      .qkv = random(n.rows(), n.qkv_width(), 1),
      .layout = n,
      .scale = kScale,
      .y = {},
      .log_sum =
          Tensor::empty({n.batch, n.segments, n.heads, n.tokens}, DType::kFloat32, Device::kCuda),
      .dy = random(n.rows(), n.query_width(), 2),
      .drotated = {},
      .dqkv = {}};
  const Tensor y = Tensor::empty(args.dy.shape(), DType::kFloat32, Device::kCuda);
  cuda_attention().attention({.rotated = fp32(args.rotated),
                              .qkv = fp32(args.qkv),
                              .layout = n,
                              .scale = kScale,
                              .first_query = 0,
                              .y = y,
                              .log_sum = args.log_sum});
  args.y = bf16(y);
  return args;
}

// The portable kernels' answer in fp32.
struct Answer {
  Tensor drotated, dqkv;
};
Answer expected_answer(AttentionKernels::AttentionGrad args) {
  for (Tensor* tensor : {&args.rotated, &args.qkv, &args.y, &args.dy}) *tensor = fp32(*tensor);
  args.drotated = {Tensor::zeros_like(args.rotated)};
  args.dqkv = {Tensor::zeros_like(args.qkv)};
  cuda_attention().attention_grad(args);
  return {args.drotated.tensor, args.dqkv.tensor};
}

std::vector<std::uint8_t> bytes_of(const Tensor& tensor) {
  const Tensor here = tensor.to(Device::kCpu);
  const auto* begin = reinterpret_cast<const std::uint8_t*>(here.raw());
  return {begin, begin + here.bytes()};
}

std::vector<HeadLayout> layouts() {
  std::vector<HeadLayout> all;
  for (const int width : {128, 64})
    for (const std::int64_t tokens : {64, 128, 256, 2048, 5, 65, 200})
      for (const auto& [heads, kv_heads] : {std::pair{4, 1}, std::pair{8, 8}})
        all.push_back(layout_of(tokens, heads, kv_heads, width));
  return all;
}

std::string name_of(const HeadLayout& n) {
  return text(n.tokens, " tokens, ", n.heads, " heads of ", n.head_width, " over ", n.kv_heads);
}

TEST_F(GpuHopperAttention, GradientsAgreeWithThePortableKernels) {
  for (const HeadLayout& n : layouts()) {
    auto args = question(n);
    const Answer expected = expected_answer(args);
    SCOPED_TRACE(name_of(n));
    args.drotated = {Tensor::zeros_like(args.rotated)};
    args.dqkv = {args.qkv.clone()};
    ASSERT_TRUE(attention_grad_hopper(args));
    expect_close(args.dqkv.tensor, expected.dqkv, n.value_columns(), "dV");
    expect_close(args.drotated.tensor, expected.drotated, n.key_columns(), "dK");
    expect_close(args.drotated.tensor, expected.drotated, n.query_columns(), "dQ");
    const Columns others{0, n.value_column(0)};
    EXPECT_EQ(values_of(args.dqkv.tensor, others), values_of(args.qkv, others))
        << "columns of queries and keys changed";
  }
}

TEST_F(GpuHopperAttention, GradientsAreAddedToWhatIsThere) {
  const HeadLayout n = layout_of(200, 4, 2, 128);
  auto args = question(n);
  args.drotated = {Tensor::empty_like(args.rotated)};
  args.dqkv = {Tensor::zeros_like(args.qkv)};
  ASSERT_TRUE(attention_grad_hopper(args));
  auto more = args;
  more.drotated = {args.rotated.clone(), true};
  more.dqkv = {args.qkv.clone(), true};
  ASSERT_TRUE(attention_grad_hopper(more));
  const auto added = [](const Tensor& a, const Tensor& b, Columns columns) {
    Values sum = values_of(a, columns);
    const Values other = values_of(b, columns);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += other[i];
    return sum;
  };
  const Columns all{0, n.rotated_width()};
  EXPECT_LT(relative_error(values_of(more.drotated.tensor, all),
                           added(args.rotated, args.drotated.tensor, all)),
            4e-3);
  EXPECT_LT(relative_error(values_of(more.dqkv.tensor, n.value_columns()),
                           added(args.qkv, args.dqkv.tensor, n.value_columns())),
            4e-3);
  EXPECT_EQ(values_of(more.dqkv.tensor, all), values_of(args.qkv, all));
}

TEST_F(GpuHopperAttention, GradientsThatNobodyAsksForAreLeftOut) {
  auto args = question(layout_of(128, 4, 2, 128));
  args.drotated = {Tensor::empty_like(args.rotated)};
  args.dqkv = {Tensor::zeros_like(args.qkv)};
  ASSERT_TRUE(attention_grad_hopper(args));
  auto only = args;
  only.drotated = {};
  only.dqkv = {Tensor::zeros_like(args.qkv)};
  ASSERT_TRUE(attention_grad_hopper(only));
  EXPECT_EQ(bytes_of(only.dqkv.tensor), bytes_of(args.dqkv.tensor));
  only.drotated = {Tensor::empty_like(args.rotated)};
  only.dqkv = {};
  ASSERT_TRUE(attention_grad_hopper(only));
  EXPECT_EQ(bytes_of(only.drotated.tensor), bytes_of(args.drotated.tensor));
}

TEST_F(GpuHopperAttention, GradientsTurnBack) {
  constexpr std::int64_t kFirst = 7;
  for (const int width : {128, 64})
    for (const std::int64_t tokens : {128, 200}) {
      const HeadLayout n = layout_of(tokens, 4, 2, width);
      SCOPED_TRACE(name_of(n));
      auto args = question(n);
      const Tensor table =
          rotary_table(kFirst + tokens, width, 10000, DType::kFloat32, Device::kCuda);
      for (const bool accumulate : {false, true}) {
        const Answer expected = expected_answer(args);
        const Tensor start = fp32(args.qkv);
        cuda_rotary().rotate_grad({.drotated = expected.drotated,
                                   .table = table,
                                   .layout = n,
                                   .first_position = kFirst,
                                   .dqueries = {start, accumulate},
                                   .dkeys = {start, !accumulate}});
        const Tensor dqkv = args.qkv.clone();
        args.dqkv = {dqkv};
        const TurnBack turn_back{.table = table,
                                 .first_position = kFirst,
                                 .dqueries = {dqkv, accumulate},
                                 .dkeys = {dqkv, !accumulate}};
        ASSERT_TRUE(attention_grad_hopper(args, &turn_back));
        expect_close(dqkv, start, n.query_columns(), "dQ");
        expect_close(dqkv, start, n.key_columns(), "dK");
        expect_close(dqkv, expected.dqkv, n.value_columns(), "dV");
      }
    }
}

TEST_F(GpuHopperAttention, GradientsRepeatByteForByte) {
  for (const HeadLayout& n : {layout_of(2048, 8, 8, 128), layout_of(333, 8, 2, 128)}) {
    auto args = question(n);
    std::vector<std::uint8_t> first[2];
    for (int repeat = 0; repeat < 5; ++repeat) {
      args.drotated = {Tensor::empty_like(args.rotated)};
      args.dqkv = {Tensor::zeros_like(args.qkv)};
      ASSERT_TRUE(attention_grad_hopper(args));
      const Tensor results[] = {args.drotated.tensor, args.dqkv.tensor};
      for (int i = 0; i < 2; ++i) {
        const auto bytes = bytes_of(results[i]);
        if (repeat == 0) first[i] = bytes;
        EXPECT_TRUE(bytes == first[i]) << name_of(n) << ", result " << i << " of " << repeat;
      }
    }
  }
}

TEST_F(GpuHopperAttention, RefusesWhatItHasNoKernelFor) {
  auto args = question(layout_of(128, 2, 2, 96));
  args.drotated = {Tensor::empty_like(args.rotated)};
  EXPECT_FALSE(attention_grad_hopper(args));
}

// Milliseconds on the device, the median of ten.
template <class Function>
double milliseconds(Function function) {
  cudaEvent_t begin{}, end{};
  cuda_check(cudaEventCreate(&begin), "cudaEventCreate");
  cuda_check(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<float> times;
  for (int i = 0; i < 13; ++i) {
    cuda_check(cudaEventRecord(begin, cuda_stream()), "cudaEventRecord");
    function();
    cuda_check(cudaEventRecord(end, cuda_stream()), "cudaEventRecord");
    cuda_check(cudaEventSynchronize(end), "cudaEventSynchronize");
    float elapsed = 0;
    cuda_check(cudaEventElapsedTime(&elapsed, begin, end), "cudaEventElapsedTime");
    if (i >= 3) times.push_back(elapsed);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// One segment's random numbers in every segment.
Tensor repeated(const HeadLayout& n, std::int64_t width, std::uint32_t site) {
  const Tensor one = random_tensor({n.tokens, width}, site).to(Device::kCuda);
  const Tensor all = Tensor::empty({n.rows(), width}, DType::kBFloat16, Device::kCuda);
  for (std::int64_t row = 0; row < n.rows(); row += n.tokens)
    all.slice(row, n.tokens).copy_from(one);
  return all;
}

TEST_F(GpuHopperAttentionSpeed, Prints) {
  const HeadLayout n{
      .batch = 1, .segments = 64, .tokens = 2048, .heads = 8, .kv_heads = 8, .head_width = 128};
  const Tensor rotated = repeated(n, n.rotated_width(), 0), qkv = repeated(n, n.qkv_width(), 1),
               dy = repeated(n, n.query_width(), 2);
  const AttentionKernels::Attention forward{
      .rotated = rotated,
      .qkv = qkv,
      .layout = n,
      .scale = kScale,
      .first_query = 0,
      .y = Tensor::empty_like(dy),
      .log_sum =
          Tensor::empty({n.batch, n.segments, n.heads, n.tokens}, DType::kFloat32, Device::kCuda)};
  cuda_attention().attention(forward);
  const AttentionKernels::AttentionGrad backward{.rotated = rotated,
                                                 .qkv = qkv,
                                                 .layout = n,
                                                 .scale = kScale,
                                                 .y = forward.y,
                                                 .log_sum = forward.log_sum,
                                                 .dy = dy,
                                                 .drotated = {Tensor::empty_like(rotated)},
                                                 .dqkv = {Tensor::zeros_like(qkv)}};
  // Operations of one product of all scores or with all scores, of which causal ones are half.
  const double product = double(n.segments) * n.heads * n.tokens * n.tokens * n.head_width;
  const auto print = [&](const std::string& what, double time, int products) {
    std::printf("%-44s %7.3f ms", what.c_str(), time);
    if (products) std::printf(" %6.0f TFLOP/s", products * product / time / 1e9);
    std::printf("\n");
  };
  const auto run = [&](const TurnBack* turn_back) {
    return milliseconds([&] { attention_grad_hopper(backward, turn_back); });
  };
  print("backward", run(nullptr), 5);
  const TurnBack turn_back{
      .table = rotary_table(n.tokens, n.head_width, 10000, DType::kFloat32, Device::kCuda),
      .dqueries = {backward.dqkv.tensor, true},
      .dkeys = {backward.dqkv.tensor, true}};
  print("backward, turned back and added", run(&turn_back), 5);
  for (const bool deterministic : {true, false}) {
    const double time = milliseconds([&] { attention_grad_cudnn(backward, deterministic); });
    print(deterministic ? "backward by cuDNN, deterministic" : "backward by cuDNN, atomics", time,
          5);
  }
  print("forward by cuDNN", milliseconds([&] { attention_cudnn(forward); }), 2);
}

}  // namespace
}  // namespace infini

#endif  // INFINI_CUDA
