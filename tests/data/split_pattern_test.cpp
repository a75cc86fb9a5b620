#include "data/split_pattern.h"

#include "tests/data/fixtures.h"

namespace infini {
namespace {

using testing::ElementsAre;

std::vector<std::string> pieces(SplitPattern pattern, std::string_view text) {
  std::vector<std::string> found;
  while (!text.empty()) {
    found.emplace_back(text.substr(0, first_piece(pattern, text)));
    text.remove_prefix(found.back().size());
  }
  return found;
}

TEST(SplitPattern, Gpt2CutsWordsNumbersAndSigns) {
  const auto cut = [](std::string_view text) { return pieces(SplitPattern::kGpt2, text); };
  EXPECT_THAT(cut("It's 12345  o'clock!"),
              ElementsAre("It", "'s", " 12345", " ", " o", "'", "clock", "!"));
  EXPECT_THAT(cut("I'LL x\n\n y \n"), ElementsAre("I", "'", "LL", " x", "\n\n", " y", " \n"));
  EXPECT_THAT(cut("a\tb\xC2\xA0 c"), ElementsAre("a", "\t", "b", "\xC2\xA0", " c"));
  EXPECT_THAT(cut("...???  "), ElementsAre("...???", "  "));
}

TEST(SplitPattern, Llama3CutsNumbersInThreesAndKeepsLineEndsTogether) {
  const auto cut = [](std::string_view text) { return pieces(SplitPattern::kLlama3, text); };
  EXPECT_THAT(cut("It'S 12345  o'clock!\n"),
              ElementsAre("It", "'S", " ", "123", "45", " ", " o", "'clock", "!\n"));
  EXPECT_THAT(cut("x \r\n\n  y"), ElementsAre("x", " \r\n\n", " ", " y"));
  EXPECT_THAT(cut("\tx ;\r\nz"), ElementsAre("\tx", " ;\r\n", "z"));
  EXPECT_THAT(cut("it'\xC5\xBF"), ElementsAre("it", "'\xC5\xBF")) << "the long s is an s";
}

TEST(SplitPattern, Qwen2CutsNumbersIntoDigits) {
  const auto cut = [](std::string_view text) { return pieces(SplitPattern::kQwen2, text); };
  EXPECT_THAT(cut("a 123"), ElementsAre("a", " ", "1", "2", "3"));
  EXPECT_THAT(cut("\xD9\xA3\xD9\xA4"), ElementsAre("\xD9\xA3", "\xD9\xA4"));
}

TEST(SplitPattern, CutsAnyBytesIntoPiecesThatAreNotEmpty) {
  for (const SplitPattern pattern :
       {SplitPattern::kGpt2, SplitPattern::kLlama3, SplitPattern::kQwen2})
    for (std::uint64_t seed = 0; seed < 1000; ++seed) {
      const std::string text = random_text(seed, 40, true);
      std::string joined;
      for (const std::string& piece : pieces(pattern, text)) {
        ASSERT_FALSE(piece.empty()) << seed;
        joined += piece;
      }
      ASSERT_EQ(joined, text) << seed;
    }
}

TEST(SplitPattern, KnowsNoOtherExpression) {
  EXPECT_FALSE(split_pattern("").has_value());
  EXPECT_FALSE(split_pattern("\\s+").has_value());
}

}  // namespace
}  // namespace infini
