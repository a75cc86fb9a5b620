#include "data/units.h"

#include "tests/data/fixtures.h"

namespace infini {
namespace {

std::vector<std::string> units(std::string_view text) {
  std::vector<std::string> parts;
  for (; !text.empty(); text.remove_prefix(parts.back().size()))
    parts.emplace_back(first_unit(text).text);
  return parts;
}

TEST(Units, CutBeforeSpacesAndAroundLineBreaks) {
  EXPECT_EQ(units("The  cat\n\n\tsat on  "),
            (std::vector<std::string>{"The", "  cat", "\n\n\t", "sat", " on", "  "}));
}

TEST(Units, LeaveWhatSentencePieceMustNotSeeAsSingleBytes) {
  EXPECT_EQ(units("a\xFF\xC3\xA9\xC3"),
            (std::vector<std::string>{"a", "\xFF", "\xC3\xA9", "\xC3"}));
  EXPECT_EQ(units("\xE2\x96\x81"), (std::vector<std::string>{"\xE2", "\x96", "\x81"}));
  EXPECT_EQ(units(std::string_view("a\0b", 3)),
            (std::vector<std::string>{"a", std::string(1, '\0'), "b"}));
}

TEST(Units, JoinToTheText) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const std::string text = random_text(seed, 60, true);
    std::string joined;
    for (const auto& unit : units(text)) joined += unit;
    EXPECT_EQ(joined, text);
  }
}

TEST(Utf8, AcceptsExactlyTheWellFormedCharacters) {
  std::string all;
  for (std::uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    all.clear();
    append_utf8(all, c);
    ASSERT_EQ(utf8_length(all), static_cast<int>(all.size())) << c;
    ASSERT_TRUE(all.size() == 1 ||
                utf8_length(std::string_view(all).substr(0, all.size() - 1)) == 0);
  }
  for (const char* bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xC3(", "\xE2\x82(", ""})
    EXPECT_EQ(utf8_length(bad), 0);
}

}  // namespace
}  // namespace infini
