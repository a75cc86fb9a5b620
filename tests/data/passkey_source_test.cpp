#include "data/passkey_source.h"

#include <set>

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
  for (int step = 0; step < 50; ++step) EXPECT_EQ(source.row_segments(step), 3);
  for (int step = 50; step < 200; ++step) later.insert(source.row_segments(step));
  EXPECT_EQ(later, (std::set<std::int64_t>{3, 5, 9}));
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
      HasSubstr("data.passkey.row_segments: 1 segments of 32 tokens hold 32 tokens, the shortest "
                "prompt with 5 digits takes "));
}

}  // namespace
}  // namespace infini
