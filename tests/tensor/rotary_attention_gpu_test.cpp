// Attention and the memory's sums as one op: the kernels for bf16 against the portable ones in
// fp32.
#ifdef INFINI_CUDA

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "tensor/error.h"
#include "tensor/ops/recall.h"
#include "tensor/ops/rotary.h"
#include "tensor/ops/rotary_attention.h"
#include "tensor/random.h"
#include "tensor/system_memory.h"
#include "tests/tensor/head_checks.h"

namespace infini {
namespace {

constexpr double kScale = 0.09;

class GpuRotaryAttention : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  }
};

// Numbers that bf16 holds, in fp32.
Tensor random_tensor(const Shape& shape, std::uint32_t site, double deviation) {
  std::vector<float> values(shape.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(deviation * RandomKey{.seed = 11, .site = site}.normal(i));
  return Tensor::of(values, shape).to(Device::kCuda).to(DType::kBFloat16).to(DType::kFloat32);
}

struct Question {
  HeadLayout layout;
  Tensor qkv, keep, dy, dmatrix, dnormalizer;  // gradients of the three outputs
  Tensor other;                                // what the gradient of qkv holds already
};

Question question(const HeadLayout& n, bool padded, double of_attention, double of_sums) {
  Tensor keep;
  if (padded) {
    std::vector<std::uint8_t> marks(n.rows());
    for (std::size_t i = 0; i < marks.size(); ++i) marks[i] = i % 7 != 3;
    keep = Tensor::of(marks, {n.rows()}).to(Device::kCuda);
  }
  return {.layout = n,
          .qkv = random_tensor({n.rows(), n.qkv_width()}, 0, 1),
          .keep = keep,
          .dy = random_tensor({n.rows(), n.query_width()}, 1, of_attention),
          .dmatrix = random_tensor(n.matrix_shape(), 2, of_sums / std::sqrt(n.head_width)),
          .dnormalizer = random_tensor(n.normalizer_shape(), 3, of_sums),
          .other = random_tensor({n.rows(), n.qkv_width()}, 4, 0.1)};
}

// The gradient of qkv, added to `other` where there is one.
Tensor answer(const Question& asked, DType dtype, bool adds) {
  Tape tape;
  const Tensor qkv = tape.watch(asked.qkv.to(dtype));
  if (adds) tape.seed(qkv, asked.other.to(dtype));
  const Tensor table = rotary_table(asked.layout.tokens, asked.layout.head_width, 10000,
                                    DType::kFloat32, Device::kCuda);
  const AttentionAndSums made =
      rotary_attention_and_sums(qkv, table, asked.keep, asked.layout, kScale);
  tape.seed(made.y, asked.dy.to(dtype));
  tape.seed(made.sums.matrix, asked.dmatrix);
  tape.seed(made.sums.normalizer, asked.dnormalizer);
  tape.backward();
  return tape.gradient(qkv);
}

TEST_F(GpuRotaryAttention, GradientsAgreeWithThePortableKernels) {
  for (const int width : {128, 64})
    for (const std::int64_t tokens : {5, 64, 200, 384})
      for (const auto& [heads, kv_heads] : {std::pair{4, 1}, std::pair{3, 3}})
        for (const bool padded : {false, true})
          // Each part on its own, then both, neither of which the other would hide.
          for (const auto& [of_attention, of_sums] :
               {std::pair{1.0, 0.0}, std::pair{0.0, 1.0}, std::pair{1.0, 0.1}}) {
            const HeadLayout n = layout_of(tokens, heads, kv_heads, width);
            SCOPED_TRACE(text(tokens, " tokens, ", heads, " heads of ", width, " over ", kv_heads,
                              padded ? ", padded" : "", ", attention ", of_attention, ", sums ",
                              of_sums));
            const Question asked = question(n, padded, of_attention, of_sums);
            for (const bool adds : {false, true}) {
              const Tensor expected = answer(asked, DType::kFloat32, adds);
              const Tensor got = answer(asked, DType::kBFloat16, adds);
              if (of_attention != 0) expect_close(got, expected, n.query_columns(), "dQ");
              expect_close(got, expected, n.key_columns(), "dK");
              expect_close(got, expected, n.value_columns(), "dV");
            }
          }
}

TEST_F(GpuRotaryAttention, RepeatsByteForByte) {
  const Question asked = question(layout_of(1000, 8, 2, 128), true, 1, 0.1);
  const Tensor first = answer(asked, DType::kBFloat16, false).to(Device::kCpu);
  for (int i = 0; i < 4; ++i) {
    const Tensor again = answer(asked, DType::kBFloat16, false).to(Device::kCpu);
    EXPECT_EQ(std::memcmp(first.raw(), again.raw(), first.bytes()), 0);
  }
}

// The gradient of qkv through attention and a read of the memory mixed with it, which hands over
// the row dots where it can.
Tensor answer_through_recall(const Question& asked, DType dtype) {
  const HeadLayout& n = asked.layout;
  Tape tape;
  const Tensor qkv = tape.watch(asked.qkv.to(dtype));
  const Tensor table = rotary_table(n.tokens, n.head_width, 10000, DType::kFloat32, Device::kCuda);
  const AttentionAndSums made = rotary_attention_and_sums(qkv, table, asked.keep, n, kScale);
  const Tensor gate = random_tensor({n.heads}, 5, 1);
  std::vector<float> ones(n.normalizer_shape().size(), 100);
  const Tensor normalizer = Tensor::of(ones, n.normalizer_shape()).to(Device::kCuda);
  const Tensor mixed = memory_recall(qkv, random_tensor(n.matrix_shape(), 6, 100), normalizer, gate,
                                     made.y, n, {}, made.row_dots);
  tape.seed(mixed, asked.dy.to(dtype));
  tape.seed(made.sums.matrix, asked.dmatrix);
  tape.seed(made.sums.normalizer, asked.dnormalizer);
  tape.backward();
  return tape.gradient(qkv);
}

TEST_F(GpuRotaryAttention, TakesTheRowDotsOfARecall) {
  for (const int width : {128, 64})
    for (const std::int64_t tokens : {64, 200, 384}) {
      const HeadLayout n = layout_of(tokens, 4, 2, width);
      SCOPED_TRACE(text(tokens, " tokens, heads of ", width));
      const Question asked = question(n, false, 1, 0.1);
      const Tensor expected = answer_through_recall(asked, DType::kFloat32);
      const Tensor got = answer_through_recall(asked, DType::kBFloat16);
      expect_close(got, expected, n.query_columns(), "dQ");
      expect_close(got, expected, n.key_columns(), "dK");
      expect_close(got, expected, n.value_columns(), "dV");
    }
}

}  // namespace
}  // namespace infini

#endif
