#include "trainer/written_text.h"

#include <gtest/gtest.h>

#include "tensor/random.h"

namespace infini {
namespace {

TEST(StopText, ShowsWhatCannotBePartOfAStop) {
  StopText stop({"END", "\n\n"});
  EXPECT_EQ(stop.add("a text E"), "a text ");
  EXPECT_EQ(stop.add("N"), "");
  EXPECT_EQ(stop.add("T\n"), "ENT");
  EXPECT_EQ(stop.add("E"), "\n");
  EXPECT_FALSE(stop.found());
  EXPECT_EQ(stop.add("ND and more"), "");
  EXPECT_TRUE(stop.found());
  EXPECT_EQ(stop.add("more"), "");
  EXPECT_EQ(stop.rest(), "");
}

TEST(StopText, GivesBackWhatItHeldAtTheEnd) {
  StopText stop({"stop"});
  EXPECT_EQ(stop.add("do not sto"), "do not ");
  EXPECT_EQ(stop.rest(), "sto");
  EXPECT_EQ(stop.rest(), "");
  StopText none({});
  EXPECT_EQ(none.add("anything"), "anything");
}

TEST(StopText, TheFirstOfSeveralStopsCounts) {
  StopText stop({"late", "x"});
  EXPECT_EQ(stop.add("ab x late"), "ab ");
  StopText inside({"abab", "b"});
  EXPECT_EQ(inside.add("abab"), "");  // both end here, the longer began first
}

// However a text is cut, what is shown of it is what stands before the first stop.
TEST(StopText, DoesNotDependOnThePieces) {
  const std::vector<std::string> stops = {"aab", "abba", "bb"};
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const RandomKey key{.seed = seed};
    std::string all;
    for (std::uint64_t i = 0; i < 12; ++i) all += key.below(i, 2) ? 'a' : 'b';
    std::string shown;
    StopText stop(stops);
    std::size_t ended = std::string::npos;  // where the first stop was complete
    for (std::size_t length = 1; length <= all.size() && ended == std::string::npos; ++length)
      for (const std::string& word : stops)
        if (all.substr(0, length).ends_with(word)) ended = length;
    std::size_t expected = ended;
    for (const std::string& word : stops)
      if (ended != std::string::npos)
        expected = std::min(expected, all.substr(0, ended).find(word));
    for (const char letter : all) shown += stop.add(std::string(1, letter));
    EXPECT_EQ(stop.found(), ended != std::string::npos) << all;
    shown += stop.rest();
    EXPECT_EQ(shown, ended == std::string::npos ? all : all.substr(0, expected)) << all;
  }
}

TEST(WrittenText, IsWhatTheTokensSayUpToAStop) {
  const ByteTokenizer tokenizer;
  std::string shown;
  WrittenText text(tokenizer, tokenizer.end_of_text(), {"!"},
                   [&](const std::string& piece) { shown += piece; });
  for (const char letter : std::string("Yes")) EXPECT_TRUE(text.add(letter));
  EXPECT_EQ(shown, "Yes");
  EXPECT_FALSE(text.add('!'));
  text.finish();
  EXPECT_EQ(text.text(), "Yes");
  EXPECT_EQ(shown, "Yes");
}

TEST(WrittenText, OfIdsThatOnlyFillUpAnEmbeddingIsNone) {
  const ByteTokenizer tokenizer;
  WrittenText text(tokenizer, 'a', {});
  for (const std::int32_t token : {int{'b'}, 300, int{'c'}}) EXPECT_TRUE(text.add(token));
  EXPECT_EQ(text.text(), "bc");
}

}  // namespace
}  // namespace infini
