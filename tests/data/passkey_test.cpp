#include "data/passkey.h"

#include <algorithm>
#include <set>

#include "data/word_tokenizer.h"
#include "tensor/error.h"
#include "tests/data/fixtures.h"

namespace infini {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

// Index of the key sentence in the tokens of a prompt.
std::size_t key_place(const Tokenizer& tokenizer, const PasskeyPrompt& prompt) {
  const auto key = tokenizer.encode(" The pass key is " + prompt.key);
  const auto found =
      std::search(prompt.tokens.begin(), prompt.tokens.end(), key.begin(), key.end());
  return static_cast<std::size_t>(found - prompt.tokens.begin());
}

TEST(Passkey, WritesThePromptOfThePaper) {
  EXPECT_EQ(
      passkey_text("9054", 1, 1),
      "There is an important info hidden inside a lot of irrelevant text. Find it and memorize "
      "them. "
      "I will quiz you about the important information there. "
      "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
      "The pass key is 9054. Remember it. 9054 is the pass key. "
      "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
      "What is the pass key? The pass key is");
}

TEST(Passkey, TokensAreThoseOfTheWholeString) {
  const WordTokenizer words;
  const ByteTokenizer bytes;
  for (const Tokenizer* tokenizer :
       {static_cast<const Tokenizer*>(&words), static_cast<const Tokenizer*>(&bytes)}) {
    const PasskeyWriter writer(*tokenizer, 4);
    const std::string whole = passkey_text("9054", 2, 3) + " 9054";
    const auto expected = tokenizer->encode(whole);
    const auto prompt = writer.at("9054", static_cast<std::int64_t>(expected.size()), 2);
    EXPECT_EQ(prompt.tokens, expected) << tokenizer->kind();
    EXPECT_EQ(tokenizer->decode(prompt.tokens), whole);
    const std::span answer =
        std::span(prompt.tokens).subspan(static_cast<std::size_t>(prompt.answer_begin));
    EXPECT_EQ(static_cast<std::int64_t>(answer.size()), prompt.answer_tokens);
    EXPECT_THAT(tokenizer->decode(answer), EndsWith("9054"));
  }
}

TEST(Passkey, IsExactlyAsLongAsAskedAndCutsOnlyFiller) {
  const WordTokenizer words;
  const PasskeyWriter writer(words, 5);
  const auto shortest = writer.shortest_tokens();
  for (std::int64_t total = shortest; total < shortest + 120; ++total)
    for (const auto position :
         {PasskeyPosition::kStart, PasskeyPosition::kMiddle, PasskeyPosition::kEnd}) {
      const auto prompt = writer.evaluation(3, total, position, 0);
      ASSERT_EQ(static_cast<std::int64_t>(prompt.tokens.size()), total);
      const std::string text = words.decode(prompt.tokens);
      EXPECT_THAT(text, StartsWith("There is an important info hidden inside"));
      EXPECT_THAT(text, HasSubstr("there. "));
      EXPECT_THAT(text, HasSubstr(" The pass key is " + prompt.key + ". Remember it. " +
                                  prompt.key + " is the pass key."));
      EXPECT_THAT(text, EndsWith(" What is the pass key? The pass key is " + prompt.key));
    }
}

TEST(Passkey, StandsAtTheStartTheMiddleAndTheEnd) {
  const ByteTokenizer bytes;
  const PasskeyWriter writer(bytes, 5);
  const auto place = [&](PasskeyPosition position) {
    return key_place(bytes, writer.evaluation(1, 20000, position, 0));
  };
  const std::size_t task = std::string(
                               "There is an important info hidden inside a lot of irrelevant text. "
                               "Find it and memorize them. I will quiz you about the important "
                               "information there.")
                               .size();
  EXPECT_EQ(place(PasskeyPosition::kStart), task);
  EXPECT_NEAR(static_cast<double>(place(PasskeyPosition::kMiddle)), 10000, 150);
  const auto end = writer.evaluation(1, 20000, PasskeyPosition::kEnd, 0);
  EXPECT_THAT(
      bytes.decode(end.tokens),
      EndsWith(end.key + " is the pass key. What is the pass key? The pass key is " + end.key));
}

TEST(Passkey, DrawsEveryDigitAndEveryPlaceAlike) {
  const WordTokenizer words;
  const PasskeyWriter writer(words, 4);
  const std::int64_t total = writer.shortest_tokens() + 9 * 24;  // ten places
  std::map<std::size_t, int> places;
  std::map<char, int> digits;
  const int rows = 4000;
  for (int i = 0; i < rows; ++i) {
    const auto prompt = writer.random({5, static_cast<std::uint64_t>(i), 9}, total, 0.2);
    ++places[key_place(words, prompt)];
    for (const char digit : prompt.key) ++digits[digit];
  }
  ASSERT_EQ(places.size(), 10u);
  int index = 0;
  for (const auto& [place, count] : places) {
    const double expected = rows * (0.08 + (index == 0 || index == 9 ? 0.1 : 0.0));
    EXPECT_NEAR(count, expected, 6 * std::sqrt(expected)) << place;
    ++index;
  }
  ASSERT_EQ(digits.size(), 10u);
  for (const auto& [digit, count] : digits)
    EXPECT_NEAR(count, rows * 0.4, 6 * std::sqrt(rows * 0.4)) << digit;
}

TEST(Passkey, EvaluationPromptsDifferByIndexPositionAndLength) {
  const WordTokenizer words;
  const PasskeyWriter writer(words, 9);
  std::set<std::string> keys;
  for (const std::int64_t total : {200, 400})
    for (const auto position :
         {PasskeyPosition::kStart, PasskeyPosition::kMiddle, PasskeyPosition::kEnd})
      for (int index = 0; index < 20; ++index)
        keys.insert(writer.evaluation(1, total, position, index).key);
  EXPECT_EQ(keys.size(), 120u);
  EXPECT_EQ(writer.evaluation(1, 200, PasskeyPosition::kEnd, 3).tokens,
            writer.evaluation(1, 200, PasskeyPosition::kEnd, 3).tokens);
}

TEST(Passkey, RefusesARowThatCannotHoldIt) {
  const WordTokenizer words;
  const PasskeyWriter writer(words, 5);
  EXPECT_THAT(
      message_of<ConfigError>([&] { writer.at("12345", 30, 0); }),
      HasSubstr("a row of 30 tokens is too short, task, key, question and answer alone take " +
                std::to_string(writer.shortest_tokens())));
  EXPECT_THAT(message_of<ConfigError>([&] { PasskeyWriter(words, 0); }),
              HasSubstr("digits must be in 1..18, got 0"));
}

TEST(WordTokenizer, GivesEachDigitATokenAndNamesUnknownWords) {
  const WordTokenizer words;
  EXPECT_LE(words.vocabulary(), 64);
  EXPECT_EQ(words.encode("9054"), (std::vector<std::int32_t>{10, 1, 6, 5}));
  EXPECT_THAT(message_of<DataError>([&] { words.encode("The pass phrase"); }),
              HasSubstr("'phrase'"));
  EXPECT_THAT(message_of<DataError>([&] { words.decode(std::vector<std::int32_t>{9999}); }),
              HasSubstr("token id 9999 is beyond the vocabulary of "));
}

TEST(Passkey, KeysStandAtAnyDepth) {
  const WordTokenizer words;
  const PasskeyWriter writer(words, 5);
  std::size_t before = 0;
  std::set<std::string> keys;
  for (const double depth : {0.0, 0.25, 0.5, 0.75, 1.0}) {
    const PasskeyPrompt prompt = writer.evaluation(1, 4000, depth, 0);
    EXPECT_EQ(prompt.tokens.size(), 4000U);
    const std::size_t place = key_place(words, prompt);
    EXPECT_NEAR(static_cast<double>(place), 40 + depth * 3900, 80) << depth;
    EXPECT_GT(place, before);
    before = place;
    keys.insert(prompt.key);
    EXPECT_EQ(prompt.tokens, writer.evaluation(1, 4000, depth, 0).tokens);
  }
  EXPECT_EQ(keys.size(), 5U);
  EXPECT_THROW(writer.evaluation(1, 4000, 1.5, 0), Error);
}

}  // namespace
}  // namespace infini
