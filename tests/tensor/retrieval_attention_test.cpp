// The search of retrieval_attention() where scores are exact in every type and many are equal: what
// is chosen is then one set on every device.
#include "tensor/ops/retrieval_attention.h"

#include "tensor/ops/relative_attention.h"
#include "tensor/system_memory.h"
#include "tests/tensor/op_run.h"

namespace infini {
namespace {

// Multiples of 1/8 between -1 and 1, whose products sum without rounding.
Array eighths(std::int64_t count, std::uint32_t site) {
  Array values(count);
  for (std::int64_t i = 0; i < count; ++i)
    values[i] = static_cast<double>(RandomKey{.seed = 13, .site = site}.below(i, 17)) / 8 - 1;
  return values;
}

void expect_the_exact_choice(Device device) {
  const HeadLayout n{
      .batch = 2, .segments = 2, .tokens = 70, .heads = 2, .kv_heads = 1, .head_width = 40};
  constexpr std::int64_t kPlaces = 300;
  reference::Marks present(n.batch * kPlaces, 1);
  for (std::int64_t i = 0; i < n.batch * kPlaces; i += 7) present[i] = 0;
  std::fill_n(present.begin(), 130, 0);  // of row 0, whole tiles
  const Array qkv = eighths(n.rows() * n.qkv_width(), 1),
              pairs = eighths(n.batch * (kPlaces + n.tokens) * 2 * n.head_width, 2),
              local = eighths(n.rows() * n.query_width(), 3);
  const Array scale{1.5, 0.5}, gate{0.5, -0.5};
  const reference::Marks seen = reference::cache_seen(present, {}, {}, n, kPlaces);
  for (const int neighbours : {1, 5, 33, 100, 256}) {
    const RetrievalOptions options{.neighbours = neighbours};
    const Array expected =
        reference::retrieval_attention({qkv, scale, gate, local, pairs}, seen, n, kPlaces, options);
    for (const auto& [dtype, tolerance] :
         {std::pair{DType::kFloat64, 1e-12}, std::pair{DType::kFloat32, 1e-5},
          std::pair{DType::kBFloat16, 1e-2}}) {
      if (device == Device::kCuda && dtype == DType::kFloat64 && neighbours > 192) continue;
      SCOPED_TRACE(text(neighbours, " in ", dtype));
      const auto to = [&](const Array& values, const Shape& shape, DType type) {
        return Tensor::of(values, shape).to(type).to(device);
      };
      const DType wide = accumulator_of(dtype);
      const Tensor y = retrieval_attention(
          to(qkv, {n.rows(), n.qkv_width()}, dtype),
          to(pairs, {n.batch * (kPlaces + n.tokens), 2 * n.head_width}, dtype),
          Tensor::of(seen, {n.batch, n.segments + 1, kPlaces}).to(device), to(scale, {2}, wide),
          to(gate, {2}, wide), to(local, {n.rows(), n.query_width()}, dtype), n, options);
      EXPECT_LE(distance(y.to_vector<double>(), expected), tolerance);
    }
  }
}

TEST(RetrievalAttention, ChoosesTheEarlierOfEqualScores) { expect_the_exact_choice(Device::kCpu); }

TEST(GpuRetrievalAttention, ChoosesTheEarlierOfEqualScores) {
  if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  expect_the_exact_choice(Device::kCuda);
}

// Keys of length 1 whatever their length was, values as they are.
void expect_pairs(Device device) {
  const HeadLayout n{
      .batch = 1, .segments = 2, .tokens = 9, .heads = 4, .kv_heads = 2, .head_width = 40};
  for (const auto& [dtype, tolerance] :
       {std::pair{DType::kFloat64, 1e-14}, std::pair{DType::kFloat32, 1e-6},
        std::pair{DType::kBFloat16, 4e-3}}) {
    const Tensor qkv =
        Tensor::of(random_values(n.rows() * n.qkv_width(), -3, 3, 4), {n.rows(), n.qkv_width()})
            .to(dtype);
    const Array in = qkv.to_vector<double>();
    const Array got = memory_pairs(qkv.to(device), n).to_vector<double>();
    Array expected;
    for (std::int64_t row = 0; row < n.rows(); ++row)
      for (int part = 0; part < 4; ++part) {
        const double* numbers = &in[row * n.qkv_width() + n.query_width() + part * 40];
        double square = kLengthEps;
        for (int c = 0; c < 40; ++c) square += numbers[c] * numbers[c];
        for (int c = 0; c < 40; ++c)
          expected.push_back(part < 2 ? numbers[c] / std::sqrt(square) : numbers[c]);
      }
    EXPECT_LE(distance(got, expected), tolerance) << dtype;
  }
}

TEST(MemoryPairs, AreUnitKeysAndValues) { expect_pairs(Device::kCpu); }

TEST(GpuMemoryPairs, AreUnitKeysAndValues) {
  if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  expect_pairs(Device::kCuda);
}

}  // namespace
}  // namespace infini
