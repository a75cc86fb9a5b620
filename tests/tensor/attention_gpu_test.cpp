// Attention on a GPU: cuDNN's bf16 against the portable kernels in fp32, and these against the CPU.
#ifdef INFINI_CUDA

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tensor/ops/attention.h"
#include "tensor/ops/attention_cudnn.h"
#include "tensor/random.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

constexpr double kScale = 0.09;

class GpuAttention : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  }
};

// Numbers that bf16 holds exactly, so that every type starts from the same ones.
Tensor random_tensor(const Shape& shape, std::uint32_t site) {
  std::vector<float> values(shape.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(RandomKey{.seed = 7, .site = site}.normal(i));
  return Tensor::of(values, shape).to(DType::kBFloat16).to(DType::kFloat32);
}

struct Inputs {
  HeadLayout layout;
  Tensor rotated, qkv, dy;

  explicit Inputs(const HeadLayout& heads)
      : layout(heads),
        rotated(random_tensor({heads.rows(), heads.rotated_width()}, 0)),
        qkv(random_tensor({heads.rows(), heads.qkv_width()}, 1)),
        dy(random_tensor({heads.rows(), heads.query_width()}, 2)) {}
  Inputs in(DType dtype, Device device) const {
    Inputs moved = *this;
    for (Tensor* tensor : {&moved.rotated, &moved.qkv, &moved.dy})
      *tensor = tensor->to(dtype).to(device);
    return moved;
  }
};

using Values = std::vector<double>;

Values values_of(const Tensor& tensor) { return tensor.to(Device::kCpu).to_vector<double>(); }

double relative_error(const Values& got, const Values& expected) {
  EXPECT_EQ(got.size(), expected.size());
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < std::min(got.size(), expected.size()); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(error / norm);
}

// Columns [begin, end) of a matrix.
Values columns_of(const Tensor& matrix, std::int64_t begin, std::int64_t end) {
  const auto [rows, width] = matrix.dims<2>();
  const Values all = values_of(matrix);
  Values part;
  for (std::int64_t r = 0; r < rows; ++r)
    part.insert(part.end(), all.begin() + r * width + begin, all.begin() + r * width + end);
  return part;
}

// The whole op through a tape.
struct Result {
  Values y, drotated, dqkv;
};
Result run(const Inputs& inputs) {
  Tape tape;
  const Tensor rotated = tape.watch(inputs.rotated), qkv = tape.watch(inputs.qkv);
  const Tensor y = local_attention(rotated, qkv, inputs.layout, kScale);
  tape.seed(y, inputs.dy);
  tape.backward();
  return {values_of(y), values_of(tape.gradient(rotated)), values_of(tape.gradient(qkv))};
}

AttentionKernels::Attention forward_of(const Inputs& in) {
  const HeadLayout& n = in.layout;
  const DType sums = accumulator_of(in.qkv.dtype());
  return {
      .rotated = in.rotated,
      .qkv = in.qkv,
      .layout = n,
      .scale = kScale,
      .first_query = 0,
      .y = Tensor::empty_like(in.dy),
      .log_sum = Tensor::empty({n.batch, n.segments, n.heads, n.tokens}, sums, in.qkv.device())};
}

AttentionKernels::AttentionGrad backward_of(const Inputs& in,
                                            const AttentionKernels::Attention& forward,
                                            GradTarget drotated, GradTarget dqkv) {
  return {.rotated = in.rotated,
          .qkv = in.qkv,
          .layout = in.layout,
          .scale = kScale,
          .y = forward.y,
          .log_sum = forward.log_sum,
          .dy = in.dy,
          .drotated = drotated,
          .dqkv = dqkv};
}

std::vector<std::uint8_t> bytes_of(const Tensor& tensor) {
  const Tensor here = tensor.to(Device::kCpu);
  const auto* begin = reinterpret_cast<const std::uint8_t*>(here.raw());
  return {begin, begin + here.bytes()};
}

const HeadLayout kTraining[] = {
    {.batch = 2, .segments = 2, .tokens = 256, .heads = 4, .kv_heads = 4, .head_width = 64},
    {.batch = 2, .segments = 2, .tokens = 256, .heads = 4, .kv_heads = 2, .head_width = 128},
    {.batch = 2, .segments = 2, .tokens = 2048, .heads = 8, .kv_heads = 2, .head_width = 64},
    {.batch = 2, .segments = 2, .tokens = 2048, .heads = 8, .kv_heads = 8, .head_width = 128},
};

std::string name_of(const HeadLayout& n) {
  return text(n.tokens, " tokens, ", n.heads, " heads of ", n.head_width, " over ", n.kv_heads);
}

TEST_F(GpuAttention, ByCudnnAgreesWithThePortableKernels) {
  for (const HeadLayout& layout : kTraining) {
    SCOPED_TRACE(name_of(layout));
    const Inputs inputs(layout), exact = inputs.in(DType::kFloat32, Device::kCuda),
                                 rounded = inputs.in(DType::kBFloat16, Device::kCuda);
    const auto expected = forward_of(exact), got = forward_of(rounded);
    cuda_attention().attention(expected);
    if (!attention_cudnn(got)) GTEST_SKIP() << attention_cudnn_reason();
    EXPECT_LT(relative_error(values_of(got.y), values_of(expected.y)), 1e-2);
    EXPECT_LT(relative_error(values_of(got.log_sum), values_of(expected.log_sum)), 1e-4);

    const std::int64_t values = layout.value_column(0), width = layout.qkv_width();
    const GradTarget rotated_exact{Tensor::zeros_like(exact.rotated)},
        qkv_exact{Tensor::zeros_like(exact.qkv)};
    cuda_attention().attention_grad(backward_of(exact, expected, rotated_exact, qkv_exact));
    const auto check_gradients = [&](bool deterministic) {
      const GradTarget drotated{Tensor::empty_like(rounded.rotated)}, dqkv{rounded.qkv.clone()};
      ASSERT_TRUE(attention_grad_cudnn(backward_of(rounded, got, drotated, dqkv), deterministic))
          << attention_cudnn_reason();
      EXPECT_LT(relative_error(values_of(drotated.tensor), values_of(rotated_exact.tensor)), 1e-2);
      EXPECT_LT(relative_error(columns_of(dqkv.tensor, values, width),
                               columns_of(qkv_exact.tensor, values, width)),
                1e-2);
      EXPECT_EQ(columns_of(dqkv.tensor, 0, values), columns_of(rounded.qkv, 0, values))
          << "columns of queries and keys changed";
    };
    check_gradients(true);
    check_gradients(false);
  }
}

TEST_F(GpuAttention, ByCudnnAddsToWhatIsThere) {
  const HeadLayout layout = kTraining[1];
  const Inputs in = Inputs(layout).in(DType::kBFloat16, Device::kCuda);
  const auto forward = forward_of(in);
  if (!attention_cudnn(forward)) GTEST_SKIP() << attention_cudnn_reason();
  const GradTarget drotated{Tensor::empty_like(in.rotated)}, dqkv{Tensor::zeros_like(in.qkv)};
  ASSERT_TRUE(attention_grad_cudnn(backward_of(in, forward, drotated, dqkv)))
      << attention_cudnn_reason();
  const GradTarget more_rotated{in.rotated.clone(), true}, more_qkv{in.qkv.clone(), true};
  ASSERT_TRUE(attention_grad_cudnn(backward_of(in, forward, more_rotated, more_qkv)));
  const auto added = [](const Tensor& a, const Tensor& b) {
    Values sum = values_of(a);
    const Values other = values_of(b);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += other[i];
    return sum;
  };
  EXPECT_LT(relative_error(values_of(more_rotated.tensor), added(in.rotated, drotated.tensor)),
            4e-3);
  EXPECT_LT(relative_error(values_of(more_qkv.tensor), added(in.qkv, dqkv.tensor)), 4e-3);
  EXPECT_EQ(columns_of(more_qkv.tensor, 0, layout.value_column(0)),
            columns_of(in.qkv, 0, layout.value_column(0)));

  const GradTarget only{Tensor::zeros_like(in.qkv)};
  ASSERT_TRUE(attention_grad_cudnn(backward_of(in, forward, {}, only)));
  EXPECT_EQ(bytes_of(only.tensor), bytes_of(dqkv.tensor));
}

TEST_F(GpuAttention, RepeatsByteForByte) {
  for (HeadLayout layout : {kTraining[0], kTraining[2], kTraining[3]}) {
    layout.segments = 5;  // more than one run of cuDNN's plan at 2048 tokens
    for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
      if (dtype == DType::kFloat32 && layout.tokens > 256) continue;
      SCOPED_TRACE(text(dtype, " ", name_of(layout)));
      const Inputs in = Inputs(layout).in(dtype, Device::kCuda);
      std::vector<std::uint8_t> first[3];
      for (int repeat = 0; repeat < 5; ++repeat) {
        const auto forward = forward_of(in);
        cuda_attention().attention(forward);
        const GradTarget drotated{Tensor::empty_like(in.rotated)}, dqkv{Tensor::zeros_like(in.qkv)};
        cuda_attention().attention_grad(backward_of(in, forward, drotated, dqkv));
        const Tensor results[] = {forward.y, drotated.tensor, dqkv.tensor};
        for (int i = 0; i < 3; ++i) {
          const auto bytes = bytes_of(results[i]);
          if (repeat == 0) first[i] = bytes;
          EXPECT_TRUE(bytes == first[i]) << "result " << i << " of repeat " << repeat;
        }
      }
    }
  }
}

TEST_F(GpuAttention, AgreesWithTheCpuAtEveryWidthAndLength) {
  for (const int width : {6, 32, 64, 96, 128, 256})
    for (const std::int64_t tokens : {1, 5, 17, 130, 200}) {
      const HeadLayout layout{.batch = 2,
                              .segments = 2,
                              .tokens = tokens,
                              .heads = 4,
                              .kv_heads = 2,
                              .head_width = width};
      const Inputs inputs(layout);
      const Result expected = run(inputs.in(DType::kFloat64, Device::kCpu));
      for (const auto& [dtype, tolerance] :
           {std::pair{DType::kFloat64, 1e-12}, std::pair{DType::kFloat32, 1e-5},
            std::pair{DType::kBFloat16, 1e-2}}) {
        SCOPED_TRACE(text(dtype, " ", name_of(layout)));
        const Result got = run(inputs.in(dtype, Device::kCuda));
        EXPECT_LT(relative_error(got.y, expected.y), tolerance);
        // With one token the gradient of queries and keys is 0, or what rounding left of it.
        if (tokens > 1) {
          EXPECT_LT(relative_error(got.drotated, expected.drotated), tolerance);
        }
        EXPECT_LT(relative_error(got.dqkv, expected.dqkv), tolerance);
      }
    }
}

TEST_F(GpuAttention, OfAWindowEqualsTheLastRows) {
  HeadLayout layout{.tokens = 700, .heads = 4, .kv_heads = 2, .head_width = 64};
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const double tolerance = dtype == DType::kFloat32 ? 1e-5 : 1e-2;
    const Inputs in = Inputs(layout).in(dtype, Device::kCuda);
    const Tensor whole = local_attention(in.rotated, in.qkv, layout, kScale);
    for (const std::int64_t first : {0, 1, 63, 64, 500, 684, 698, 699}) {
      SCOPED_TRACE(text(dtype, " from query ", first));
      const Tensor part = window_attention(in.rotated, in.qkv, layout, kScale, first);
      EXPECT_LT(
          relative_error(values_of(part), values_of(whole.slice(first, layout.tokens - first))),
          tolerance);
    }
  }
}

TEST_F(GpuAttention, StaysFiniteWhereScoresAreHuge) {
  for (const std::int64_t tokens : {5, 100}) {
    const HeadLayout layout{.tokens = tokens, .heads = 2, .kv_heads = 1, .head_width = 8};
    const Inputs in = Inputs(layout).in(DType::kFloat32, Device::kCuda);
    for (const double value : values_of(local_attention(in.rotated, in.qkv, layout, 1e6)))
      ASSERT_TRUE(std::isfinite(value));
  }
}

TEST_F(GpuAttention, RefusesHeadsThatAreTooWide) {
  const HeadLayout layout{.tokens = 4, .heads = 1, .kv_heads = 1, .head_width = 300};
  const Inputs in = Inputs(layout).in(DType::kFloat32, Device::kCuda);
  EXPECT_THROW(local_attention(in.rotated, in.qkv, layout, 1), Error);
}

}  // namespace
}  // namespace infini

#endif  // INFINI_CUDA
