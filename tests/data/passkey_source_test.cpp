#include "data/passkey_source.h"

#include <algorithm>
#include <set>
#include <span>

#include "tests/data/batch_checks.h"
#include "tests/data/fixtures.h"

namespace infini {
namespace {

using testing::HasSubstr;

PasskeySource small_source(std::uint64_t seed = 1) {
  return PasskeySource(
      {.digits = 4, .row_segments = {3, 5, 9}, .short_share = 0.25, .filler_weight = 0.25}, 6, 32,
      seed, 200);
}

TEST(PasskeySource, IsAPureFunctionOfStepAndRow) {
  expect_pure(small_source(), {0, 7, 60, 199, 1000});
}

TEST(PasskeySource, WeighsTheAnswerAndPredictsTheNextToken) {
  const PasskeySource source = small_source();
  const SequenceBatch batch = source.batch(100);
  EXPECT_EQ(batch.row_tokens, batch.segments * 32);
  EXPECT_EQ(batch.scored_tokens, batch.rows * (batch.row_tokens - 1));
  EXPECT_TRUE(batch.keep.empty());
  for (std::int64_t row = 0; row < batch.rows; ++row) {
    const PasskeyPrompt prompt = source.prompt(100, static_cast<int>(row));
    for (std::int64_t t = 0; t < batch.row_tokens; ++t) {
      const auto i = static_cast<std::size_t>(row * batch.row_tokens + t);
      const bool last = t + 1 == batch.row_tokens;
      EXPECT_EQ(batch.tokens[i], prompt.tokens[static_cast<std::size_t>(t)]);
      EXPECT_EQ(batch.targets[i], last ? -1 : prompt.tokens[static_cast<std::size_t>(t) + 1]);
      const bool answer = t + 1 >= prompt.answer_begin && !last;
      EXPECT_TRUE(last || batch.weights[i] == (answer ? 1.0f : 0.25f));
    }
    for (std::int64_t s = 0; s < batch.segments; ++s)
      EXPECT_EQ(batch.resets[static_cast<std::size_t>(row * batch.segments + s)], s == 0);
  }
  EXPECT_DOUBLE_EQ(batch.total_weight, batch.rows * (4 + 0.25 * (batch.row_tokens - 5)));
}

TEST(PasskeySource, StartsOnShortRowsAndThenUsesAllLengths) {
  const PasskeySource source = small_source();
  std::set<std::int64_t> later;
  for (int step = 0; step < 50; ++step) EXPECT_EQ(source.row_tokens(step), 3 * 32);
  for (int step = 50; step < 200; ++step) later.insert(source.row_tokens(step) / 32);
  EXPECT_EQ(later, (std::set<std::int64_t>{3, 5, 9}));
}

PasskeySource packed_source() {
  return PasskeySource({.digits = 4,
                        .row_segments = {12, 3, 6},
                        .packed = true,
                        .short_share = 0.25,
                        .growing_share = 0.5,
                        .answer_share = 0.75},
                       2, 32, 1, 200);
}

TEST(PasskeySource, PacksShorterPromptsIntoRowsOfTheGreatestLength) {
  const PasskeySource source = packed_source();
  expect_pure(source, {0, 7, 60, 199, 1000});
  std::set<std::int64_t> lengths;
  for (const std::int64_t step : {0, 60, 100, 140, 150, 151, 152, 153}) {
    const SequenceBatch batch = source.batch(step);
    const std::int64_t length = source.prompt_tokens(step), segments = length / 32;
    lengths.insert(segments);
    ASSERT_EQ(batch.segments, 12);
    for (std::int64_t i = 0; i < batch.rows * 12 / segments; ++i) {
      const PasskeyPrompt prompt = source.prompt(step, i);
      ASSERT_EQ(static_cast<std::int64_t>(prompt.tokens.size()), length);
      for (std::int64_t t = 0; t < length; ++t) {
        const auto at = static_cast<std::size_t>(i * length + t);
        EXPECT_EQ(batch.tokens[at], prompt.tokens[static_cast<std::size_t>(t)]);
        EXPECT_EQ(batch.targets[at], t + 1 == length ? -1 : batch.tokens[at + 1]);
        EXPECT_TRUE(t % 32 != 0 || batch.resets[at / 32] == (t == 0));
      }
    }
  }
  EXPECT_GE(lengths.size(), 2u);
}

TEST(PasskeySource, AnswersKeepTheirShareOfTheLossAtEveryLength) {
  const PasskeySource source = packed_source();
  for (const std::int64_t step : {0, 150, 151, 152, 153}) {
    const SequenceBatch batch = source.batch(step);
    const auto answers = static_cast<double>(std::ranges::count(batch.weights, 1.0f));
    EXPECT_EQ(answers,
              4.0 * static_cast<double>(batch.rows * 12 * 32 / source.prompt_tokens(step)));
    EXPECT_NEAR(answers / batch.total_weight, 0.75, 1e-5);
  }
}

TEST(PasskeySource, LengthsJoinOneAfterAnother) {
  const PasskeySource source = packed_source();
  const auto longest = [&](int first, int last) {
    std::int64_t most = 0;
    for (int step = first; step < last; ++step)
      most = std::max(most, source.prompt_tokens(step) / 32);
    return most;
  };
  EXPECT_EQ(longest(0, 50), 3);
  EXPECT_EQ(longest(50, 84), 3);
  EXPECT_EQ(longest(84, 117), 6);
  EXPECT_EQ(longest(117, 150), 12);
  EXPECT_EQ(longest(150, 200), 12);
}

TEST(PasskeySource, RefusesPromptsThatDoNotFillARow) {
  EXPECT_THAT(message_of<ConfigError>([] {
                PasskeySource({.row_segments = {4, 6}, .packed = true}, 4, 32, 1, 10);
              }),
              HasSubstr("data.passkey.packed: prompts of 4 segments do not fill rows of 6"));
}

TEST(PasskeySource, GivesOtherKeysForOtherSeedsStepsAndRows) {
  const PasskeySource a = small_source(1), b = small_source(2);
  EXPECT_NE(a.batch(0).tokens, b.batch(0).tokens);
  EXPECT_NE(a.batch(0).tokens, a.batch(1).tokens);
  EXPECT_NE(a.batch(0, 0, 1).tokens, a.batch(0, 1, 1).tokens);
}

TEST(PasskeySource, RefusesRowsThatAreTooShort) {
  EXPECT_THAT(
      message_of<ConfigError>([] {
        PasskeySource({.row_segments = {8, 1}}, 4, 32, 1, 10);
      }),
      HasSubstr("data.passkey.row_segments: the shortest row holds 32 tokens, the shortest prompt "
                "with 5 digits takes "));
  EXPECT_THAT(message_of<ConfigError>([] {
                PasskeySource({.row_tokens = {300, 40}}, 4, 32, 1, 10);
              }),
              HasSubstr("data.passkey.row_tokens: the shortest row holds 40 tokens"));
  EXPECT_THAT(message_of<ConfigError>(
                  [] { PasskeySource({.row_tokens = {300}, .packed = true}, 4, 32, 1, 10); }),
              HasSubstr("expected row_segments, not row_tokens"));
}

// As rows of 5,120 tokens in segments of 2,048.
TEST(PasskeySource, RowsMayEndWithinASegment) {
  const PasskeySource source({.digits = 4, .row_tokens = {240, 160}, .short_share = 0.5}, 3, 64, 1,
                             100);
  EXPECT_EQ(source.prompt_tokens(0), 160);
  const SequenceBatch batch = source.batch(3);
  EXPECT_EQ(batch.row_tokens, 160);
  EXPECT_EQ(batch.segments, 3);
  EXPECT_EQ(batch.resets, (std::vector<std::uint8_t>{1, 0, 0, 1, 0, 0, 1, 0, 0}));
  EXPECT_EQ(batch.scored_tokens, 3 * 159);
  for (int row = 0; row < 3; ++row) {
    const PasskeyPrompt prompt = source.prompt(3, row);
    EXPECT_TRUE(std::ranges::equal(prompt.tokens, std::span(batch.tokens).subspan(160 * row, 160)));
  }
}

}  // namespace
}  // namespace infini
