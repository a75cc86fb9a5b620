#include "trainer/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "tensor/error.h"

namespace infini {
namespace {

using testing::ThrowsMessage;

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

TEST(SampleToken, RefusesWhatCannotBeDrawn) {
  const float infinite = std::numeric_limits<float>::infinity();
  const auto draw = [](std::vector<float> logits) { sample_token(logits, {}, kKey, 0); };
  EXPECT_THAT([&] { draw({}); }, ThrowsMessage<Error>("sample_token: no logits"));
  EXPECT_THAT(
      [&] {
        draw({-infinite, -infinite});
      },
      ThrowsMessage<Error>("sample_token: no token is possible"));
  EXPECT_THAT(
      [&] {
        draw({0, std::nanf("")});
      },
      ThrowsMessage<Error>("sample_token: the logit of token 1 is nan"));
  EXPECT_THAT(
      [&] {
        draw({infinite, 0});
      },
      ThrowsMessage<Error>("sample_token: the logit of token 0 is inf"));
}

// By the book: all tokens in order, cut twice, and the place of the draw in what is left.
std::int32_t drawn_by_sorting(const std::vector<float>& logits, const SamplingOptions& options,
                              std::uint64_t index) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater(),
                           [&](std::int32_t token) { return logits[token]; });
  if (options.top_k > 0 && order.size() > static_cast<std::size_t>(options.top_k))
    order.resize(options.top_k);
  const auto weight = [&](std::int32_t token) {
    return std::exp((static_cast<double>(logits[token]) - logits[order[0]]) / options.temperature);
  };
  double all = 0, kept = 0;
  for (const std::int32_t token : order) all += weight(token);
  std::size_t count = 0;
  while (count < order.size() && (count == 0 || kept < options.top_p * all))
    kept += weight(order[count++]);
  double left = kKey.uniform(index) * kept;
  for (std::size_t i = 0; i < count; ++i)
    if ((left -= weight(order[i])) < 0) return order[i];
  return order[count - 1];
}

TEST(SampleToken, DrawsAsFromASortedList) {
  std::vector<float> logits(200);
  for (std::uint64_t round = 0; round < 20; ++round) {
    const RandomKey key{.seed = 3, .step = round};
    for (std::size_t i = 0; i < logits.size(); ++i)
      logits[i] = static_cast<float>(std::round(4 * key.normal(i)) / 2);  // with equals
    for (const SamplingOptions options :
         {SamplingOptions{}, SamplingOptions{.temperature = 0.7}, SamplingOptions{.top_k = 9},
          SamplingOptions{.top_p = 0.9},
          SamplingOptions{.temperature = 1.5, .top_k = 40, .top_p = 0.8}})
      for (std::uint64_t index = 0; index < 50; ++index)
        EXPECT_EQ(sample_token(logits, options, kKey, index),
                  drawn_by_sorting(logits, options, index));
  }
}

using Ids = std::vector<std::int32_t>;

TEST(PenalizeRepetition, MakesEveryWrittenTokenLessLikelyOnce) {
  std::vector<float> logits = {2, -1, 0.5, -3, 0};
  penalize_repetition(logits, Ids{0, 3, 0, 4, 0}, 1.25);
  EXPECT_EQ(logits, (std::vector<float>{1.6f, -1, 0.5, -3.75f, 0}));
  penalize_repetition(logits, Ids{}, 2);
  penalize_repetition(logits, Ids{0, 1, 2, 3, 4}, 1);
  EXPECT_EQ(logits, (std::vector<float>{1.6f, -1, 0.5, -3.75f, 0}));
}

TEST(PenalizeRepetition, LeavesOthersAndTheOrderOfEqualSigns) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const RandomKey key{.seed = seed};
    std::vector<float> before(30), after;
    for (std::size_t i = 0; i < before.size(); ++i) before[i] = static_cast<float>(key.normal(i));
    Ids written;
    for (std::uint64_t i = 0; i < 20; ++i)
      written.push_back(static_cast<std::int32_t>(key.below(100 + i, 30)));
    const double penalty = 1 + 2 * key.uniform(200);
    after = before;
    penalize_repetition(after, written, penalty);
    for (std::int32_t i = 0; i < 30; ++i) {
      if (std::ranges::find(written, i) == written.end())
        EXPECT_EQ(after[i], before[i]);
      else
        EXPECT_LT(after[i], before[i]);
      EXPECT_EQ(after[i] > 0, before[i] > 0);
    }
    std::vector<float> back = after;
    penalize_repetition(back, written, 1 / penalty);
    for (std::size_t i = 0; i < back.size(); ++i) EXPECT_NEAR(back[i], before[i], 1e-6);
  }
}

// What every run of n tokens in `written` says by itself.
TEST(ForbidRepeatedNgrams, LeavesNoTokenThatWouldRepeatARun) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const RandomKey key{.seed = seed};
    Ids written;
    for (std::uint64_t i = 0; i < key.below(1000, 30); ++i)
      written.push_back(static_cast<std::int32_t>(key.below(i, 4)));
    for (const int n : {1, 2, 3, 4}) {
      std::vector<float> logits(7, 1.5f);
      forbid_repeated_ngrams(logits, written, n);
      for (std::int32_t token = 0; token < 7; ++token) {
        Ids longer = written;
        longer.push_back(token);
        bool repeats = false;
        if (longer.size() > static_cast<std::size_t>(n)) {
          const Ids last(longer.end() - n, longer.end());
          for (std::size_t i = 0; i + n < longer.size(); ++i)
            repeats = repeats || std::equal(last.begin(), last.end(), longer.begin() + i);
        }
        EXPECT_EQ(std::isinf(logits[token]), repeats) << "token " << token << ", runs of " << n;
      }
    }
  }
}

TEST(ForbidRepeatedNgrams, ForbidsNothingWhereNothingWouldBeLeft) {
  std::vector<float> logits = {1, 2};
  forbid_repeated_ngrams(logits, Ids{0, 1}, 1);
  EXPECT_EQ(logits, (std::vector<float>{1, 2}));
  forbid_repeated_ngrams(logits, Ids{0, 0, 0}, 0);
  forbid_repeated_ngrams(logits, Ids{}, 1);
  EXPECT_EQ(logits, (std::vector<float>{1, 2}));
}

TEST(RepetitionControl, RefusesTokensBeyondTheVocabularyAndSenselessOptions) {
  std::vector<float> logits = {1, 2};
  EXPECT_THAT([&] { penalize_repetition(logits, Ids{2}, 2); },
              ThrowsMessage<Error>("penalize_repetition: token 2 in a vocabulary of 2"));
  EXPECT_THAT([&] { forbid_repeated_ngrams(logits, Ids{-1}, 1); },
              ThrowsMessage<Error>("forbid_repeated_ngrams: token -1 in a vocabulary of 2"));
  EXPECT_THAT([] { RepetitionOptions{.penalty = 0}.validate(); },
              ThrowsMessage<ConfigError>("the repetition penalty must be positive, got 0"));
  EXPECT_THAT([] { RepetitionOptions{.no_repeat_ngram = -1}.validate(); },
              ThrowsMessage<ConfigError>("runs of -1 tokens cannot be kept from repeating"));
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
