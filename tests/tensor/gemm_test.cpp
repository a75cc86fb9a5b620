#include "tensor/ops/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tensor/random.h"

namespace infini {
namespace {

struct Case {
  std::int64_t m, n, k;
  bool transpose_a, transpose_b, accumulate;

  friend std::ostream& operator<<(std::ostream& out, const Case& c) {
    return out << c.m << "x" << c.n << "x" << c.k << (c.transpose_a ? " A^T" : "")
               << (c.transpose_b ? " B^T" : "") << (c.accumulate ? " +=" : "");
  }
};

std::vector<Case> cases() {
  const RandomKey key{.seed = 1};
  std::vector<std::array<std::int64_t, 3>> sizes = {
      {1, 1, 1},     {8, 32, 16},   {16, 64, 64}, {1, 200, 300}, {200, 1, 3},
      {64, 64, 256}, {64, 64, 257}, {65, 513, 7}, {5, 3, 0},     {0, 4, 4},
      {4, 0, 4},     {9, 33, 600},  {72, 31, 15}, {7, 1030, 40}, {130, 17, 512}};
  for (std::uint64_t i = 0; i < 12; ++i)
    sizes.push_back({static_cast<std::int64_t>(1 + key.below(3 * i, 100)),
                     static_cast<std::int64_t>(1 + key.below(3 * i + 1, 140)),
                     static_cast<std::int64_t>(1 + key.below(3 * i + 2, 300))});
  std::vector<Case> result;
  for (const auto& [m, n, k] : sizes)
    for (int bits = 0; bits < 8; ++bits)
      result.push_back({m, n, k, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0});
  return result;
}

template <class T>
std::vector<T> random_values(std::int64_t count, std::uint32_t site) {
  const RandomKey key{.seed = 2, .site = site};
  std::vector<T> values(count);
  for (std::int64_t i = 0; i < count; ++i)
    values[i] = T(static_cast<Accumulator<T>>(2 * key.uniform(i) - 1));
  return values;
}

// The largest |C - naive C| divided by the sum of |a| |b| (and of |c| where it accumulates), over
// matrices that are windows of wider ones; fails if anything outside the window of C changes.
template <class A, class B, class C>
double worst_error(const Case& test) {
  const auto [m, n, k, ta, tb, accumulate] = test;
  const std::int64_t lda = (ta ? m : k) + 3, ldb = (tb ? k : n) + 5, ldc = n + 2;
  const auto a = random_values<A>((ta ? k : m) * lda, 0);
  const auto b = random_values<B>((tb ? n : k) * ldb, 1);
  const auto before = random_values<C>(m * ldc, 2);
  auto c = before;
  gemm(ta, tb, m, n, k, a.data(), lda, b.data(), ldb, c.data(), ldc, accumulate);

  double worst = 0;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = accumulate ? static_cast<double>(before[i * ldc + j]) : 0.0,
             size = std::fabs(sum) + 1e-30;
      for (std::int64_t p = 0; p < k; ++p) {
        const double term = static_cast<double>(a[ta ? p * lda + i : i * lda + p]) *
                            static_cast<double>(b[tb ? j * ldb + p : p * ldb + j]);
        sum += term;
        size += std::fabs(term);
      }
      worst = std::max(worst, std::fabs(static_cast<double>(c[i * ldc + j]) - sum) / size);
    }
    for (std::int64_t j = n; j < ldc; ++j)
      EXPECT_EQ(double(c[i * ldc + j]), double(before[i * ldc + j])) << "written outside";
  }
  return worst;
}

TEST(Gemm, EqualsTheNaiveLoopInEveryLayoutAndType) {
  // A product in bf16 is rounded once, at its end: half a unit in its 8 bits.
  const double kFloat = 1e-6, kBFloat = 4e-3;
  for (const Case& test : cases()) {
    SCOPED_TRACE(testing::Message() << test);
    EXPECT_LE((worst_error<double, double, double>(test)), 1e-14);
    EXPECT_LE((worst_error<float, float, float>(test)), kFloat);
    EXPECT_LE((worst_error<BFloat16, BFloat16, float>(test)), kFloat);
    EXPECT_LE((worst_error<float, BFloat16, float>(test)), kFloat);
    EXPECT_LE((worst_error<BFloat16, float, float>(test)), kFloat);
    EXPECT_LE((worst_error<BFloat16, BFloat16, BFloat16>(test)), kBFloat);
    EXPECT_LE((worst_error<float, BFloat16, BFloat16>(test)), kBFloat);
    EXPECT_LE((worst_error<BFloat16, float, BFloat16>(test)), kBFloat);
    EXPECT_LE((worst_error<float, float, BFloat16>(test)), kBFloat);
  }
}

TEST(Gemm, HasTheSameBytesComputedWholeAndInTiles) {
  const std::int64_t m = 150, n = 170, k = 530;
  const auto a = random_values<float>(m * k, 0), b = random_values<float>(n * k, 1);
  std::vector<float> whole(m * n), tiles(m * n);
  gemm(false, true, m, n, k, a.data(), k, b.data(), k, whole.data(), n, false);
  for (std::int64_t i = 0; i < m; i += 37)
    for (std::int64_t j = 0; j < n; j += 45)
      gemm(false, true, std::min<std::int64_t>(37, m - i), std::min<std::int64_t>(45, n - j), k,
           a.data() + i * k, k, b.data() + j * k, k, tiles.data() + i * n + j, n, false);
  EXPECT_EQ(whole, tiles);
}

TEST(Gemm, RoundsToBFloat16AsBFloat16Does) {
  const float one = 1;
  for (const float value : {1.00390625f, 1.01171875f, -3.3e38f, 3.4e38f, 1e-40f, 0.0f, INFINITY}) {
    std::vector<BFloat16> rounded(32);
    const std::vector<float> row(32, value);
    gemm(false, false, 1, 32, 1, &one, 1, row.data(), 32, rounded.data(), 32, false);
    for (const BFloat16& x : rounded) EXPECT_EQ(x.bits, BFloat16(value).bits) << value;
  }
  const std::vector<float> row(32, NAN);
  std::vector<BFloat16> rounded(32);
  gemm(false, false, 1, 32, 1, &one, 1, row.data(), 32, rounded.data(), 32, false);
  for (const BFloat16& x : rounded) EXPECT_TRUE(std::isnan(float(x)));
}

}  // namespace
}  // namespace infini
