#include "tensor/random.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace infini {
namespace {

using testing::ElementsAre;

// The known answers of the paper's authors (Random123, kat_vectors, philox4x32 with 10 rounds).
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_THAT(philox({0, 0}, {0, 0, 0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  constexpr std::uint32_t kOnes = 0xffffffff;
  EXPECT_THAT(philox({kOnes, kOnes}, {kOnes, kOnes, kOnes, kOnes}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(philox({0xa4093822, 0x299f31d0}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

constexpr RandomKey kKey{.seed = 1, .step = 2, .site = 3};
constexpr int kCount = 200000;

TEST(RandomKey, IsAPureFunctionKnownAtCompileTime) {
  constexpr std::uint64_t kWord = kKey.bits(7);
  EXPECT_EQ(kWord, (RandomKey{.seed = 1, .step = 2, .site = 3}.bits(7)));
}

TEST(RandomKey, GivesAnotherStreamForEveryMember) {
  std::set<std::uint64_t> words;
  const RandomKey keys[] = {kKey,
                            {.seed = 4, .step = 2, .site = 3},
                            {.seed = 1 + (1ull << 32), .step = 2, .site = 3},
                            {.seed = 1, .step = 5, .site = 3},
                            {.seed = 1, .step = 2 + (1ull << 32), .site = 3},
                            {.seed = 1, .step = 2, .site = 6}};
  for (const RandomKey& key : keys)
    for (std::uint64_t i = 0; i < 1000; ++i) {
      words.insert(key.bits(i));
      words.insert(key.bits(i + (1ull << 40)));
    }
  EXPECT_EQ(words.size(), std::size(keys) * 2000);
}

TEST(RandomKey, IsUniform) {
  std::vector<int> tenths(10);
  double sum = 0, products = 0, previous = 0.5;
  for (int i = 0; i < kCount; ++i) {
    const double value = kKey.uniform(i);
    ASSERT_GE(value, 0);
    ASSERT_LT(value, 1);
    ++tenths[static_cast<int>(value * 10)];
    sum += value;
    products += (value - 0.5) * (previous - 0.5);
    previous = value;
  }
  double chi_squared = 0;
  for (const int count : tenths)
    chi_squared += (count - kCount / 10.) * (count - kCount / 10.) / (kCount / 10.);
  EXPECT_LT(chi_squared, 27.9);  // 9 degrees of freedom, one in a thousand
  EXPECT_NEAR(sum / kCount, 0.5, 4 / std::sqrt(12. * kCount));
  EXPECT_NEAR(products / kCount, 0, 4 / 12. / std::sqrt(1. * kCount));  // neighbours are unrelated
}

TEST(RandomKey, DrawsIntegersBelowABoundEvenly) {
  std::vector<int> counts(7);
  for (int i = 0; i < kCount; ++i) ++counts.at(kKey.below(i, 7));
  for (const int count : counts) EXPECT_NEAR(count, kCount / 7., 4 * std::sqrt(kCount / 7.));
  EXPECT_EQ(kKey.below(5, 1), 0u);
  EXPECT_LT(kKey.below(5, ~0ull), ~0ull);
}

TEST(RandomKey, DrawsNormalsWithTheRightMoments) {
  double moments[5] = {};
  for (int i = 0; i < kCount; ++i) {
    const double value = kKey.normal(i);
    ASSERT_TRUE(std::isfinite(value));
    double power = 1;
    for (double& moment : moments) {
      moment += power / kCount;
      power *= value;
    }
  }
  const double error = 4 / std::sqrt(1. * kCount);
  EXPECT_NEAR(moments[1], 0, error);
  EXPECT_NEAR(moments[2], 1, error * std::sqrt(2));
  EXPECT_NEAR(moments[3], 0, error * std::sqrt(15));
  EXPECT_NEAR(moments[4], 3, error * std::sqrt(96));
}

}  // namespace
}  // namespace infini
