// Attention of the newest tokens alone, against attention over whole segments.
#include <gtest/gtest.h>

#include <cmath>

#include "tensor/ops/attention.h"
#include "tensor/random.h"

namespace infini {
namespace {

Tensor random_tensor(const Shape& shape, DType dtype, std::uint32_t site) {
  std::vector<double> values(shape.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = RandomKey{.seed = 4, .site = site}.normal(i);
  return Tensor::of(values, shape).to(dtype);
}

TEST(WindowAttention, EqualsTheLastRowsOfLocalAttention) {
  const HeadLayout layout{.tokens = 130, .heads = 4, .kv_heads = 2, .head_width = 6};
  for (const auto& [dtype, tolerance] :
       {std::pair{DType::kFloat64, 1e-13}, std::pair{DType::kFloat32, 1e-5}}) {
    const Tensor rotated = random_tensor({layout.rows(), layout.rotated_width()}, dtype, 0);
    const Tensor qkv = random_tensor({layout.rows(), layout.qkv_width()}, dtype, 1);
    const Tensor whole = local_attention(rotated, qkv, layout, 0.4);
    for (const std::int64_t first : {0, 1, 63, 64, 100, 129}) {
      const Tensor part = window_attention(rotated, qkv, layout, 0.4, first);
      const auto got = part.to_vector<double>();
      const auto expected = whole.slice(first, layout.tokens - first).to_vector<double>();
      ASSERT_EQ(got.size(), expected.size());
      for (std::size_t i = 0; i < got.size(); ++i)
        ASSERT_NEAR(got[i], expected[i], tolerance) << "from query " << first;
    }
  }
}

TEST(LocalAttention, StaysFiniteWhereScoresAreHuge) {
  const HeadLayout layout{.tokens = 5, .heads = 1, .kv_heads = 1, .head_width = 2};
  const Tensor rotated = random_tensor({5, 4}, DType::kFloat32, 0);
  const Tensor qkv = random_tensor({5, 6}, DType::kFloat32, 1);
  for (const float value : local_attention(rotated, qkv, layout, 1e6).to_vector<float>())
    EXPECT_TRUE(std::isfinite(value));
}

}  // namespace
}  // namespace infini
