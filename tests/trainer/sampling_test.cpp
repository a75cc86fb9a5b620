#include "trainer/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace infini {
namespace {

const RandomKey kKey{.seed = 11, .step = 0, .site = 1};
constexpr int kDraws = 20'000;

// How often each token is drawn.
std::vector<int> counts(const std::vector<float>& logits, const SamplingOptions& options) {
  std::vector<int> counts(logits.size());
  for (int i = 0; i < kDraws; ++i) ++counts.at(sample_token(logits, options, kKey, i));
  return counts;
}

// Each count lies within four standard deviations of what its probability says.
void expect_frequencies(const std::vector<int>& counts, const std::vector<double>& probabilities) {
  ASSERT_EQ(counts.size(), probabilities.size());
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double p = probabilities[i];
    EXPECT_NEAR(counts[i], kDraws * p, 4 * std::sqrt(kDraws * p * (1 - p))) << "token " << i;
  }
}

std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + 3));
  return logits;
}

const std::vector<double> kProbabilities = {0.1, 0.4, 0.05, 0.3, 0.15};
const std::vector<float> kLogits = logits_of(kProbabilities);

TEST(SampleToken, DrawsByProbability) { expect_frequencies(counts(kLogits, {}), kProbabilities); }

TEST(SampleToken, SharpensByTemperature) {
  std::vector<double> squares;
  double sum = 0;
  for (const double p : kProbabilities) squares.push_back(p * p), sum += p * p;
  for (double& p : squares) p /= sum;
  expect_frequencies(counts(kLogits, {.temperature = 0.5}), squares);
}

TEST(SampleToken, TakesTheMostLikelyAtTemperatureZeroAndTheFirstOfEquals) {
  EXPECT_EQ(sample_token(kLogits, {.temperature = 0}, kKey, 0), 1);
  EXPECT_EQ(sample_token(std::vector<float>{2, 5, 5}, {.temperature = 0}, kKey, 0), 1);
  EXPECT_EQ(sample_token(std::vector<float>{-7}, {.temperature = 0}, kKey, 0), 0);
}

TEST(SampleToken, TopKDrawsAmongTheKMostLikely) {
  expect_frequencies(counts(kLogits, {.top_k = 2}), {0, 4.0 / 7, 0, 3.0 / 7, 0});
  expect_frequencies(counts(kLogits, {.top_k = 1}), {0, 1, 0, 0, 0});
  EXPECT_EQ(counts(kLogits, {.top_k = 5}), counts(kLogits, {}));
  EXPECT_EQ(counts(kLogits, {.top_k = 1000}), counts(kLogits, {}));
}

TEST(SampleToken, TopPDrawsAmongTheFewestThatReachP) {
  expect_frequencies(counts(kLogits, {.top_p = 0.6}), {0, 4.0 / 7, 0, 3.0 / 7, 0});
  expect_frequencies(counts(kLogits, {.top_p = 0.8}), {0, 8.0 / 17, 0, 6.0 / 17, 3.0 / 17});
  expect_frequencies(counts(kLogits, {.top_p = 0.39}), {0, 1, 0, 0, 0});
  expect_frequencies(counts(kLogits, {.top_p = 0}), {0, 1, 0, 0, 0});
  EXPECT_EQ(counts(kLogits, {.top_p = 1}), counts(kLogits, {}));
}

TEST(SampleToken, TopPCountsWithinTheKMostLikely) {
  // Of the three most likely, 0.4 + 0.3 of 0.85 are enough for 0.8.
  expect_frequencies(counts(kLogits, {.top_k = 3, .top_p = 0.8}), {0, 4.0 / 7, 0, 3.0 / 7, 0});
}

TEST(SampleToken, NeverDrawsTheImpossible) {
  const float impossible = -std::numeric_limits<float>::infinity();
  expect_frequencies(counts({impossible, 0, impossible, 0}, {}), {0, 0.5, 0, 0.5});
  expect_frequencies(counts({-1e30f, 1e30f, 0}, {}), {0, 1, 0});
}

TEST(SampleToken, DrawsAreIndependent) {
  double same = 0, expected = 0;
  for (int i = 0; i < kDraws; i += 2)
    same += sample_token(kLogits, {}, kKey, i) == sample_token(kLogits, {}, kKey, i + 1);
  for (const double p : kProbabilities) expected += p * p;
  EXPECT_NEAR(same, kDraws / 2 * expected, 4 * std::sqrt(kDraws / 2 * expected * (1 - expected)));
}

TEST(SampleToken, IsAFunctionOfKeyAndIndex) {
  std::vector<int> once, again;
  for (int i = 0; i < 100; ++i) once.push_back(sample_token(kLogits, {}, kKey, i));
  for (int i = 100; i-- > 0;) again.insert(again.begin(), sample_token(kLogits, {}, kKey, i));
  EXPECT_EQ(once, again);
}

}  // namespace
}  // namespace infini
