#include "data/composed_text.h"

#include "tests/data/fixtures.h"

namespace infini {
namespace {

std::string composed(std::string_view text) {
  std::string storage;
  return std::string(composed_text(text, storage));
}

TEST(ComposedText, IsNormalFormC) {
  const std::pair<const char*, const char*> kCases[] = {
      {"e\xCC\x81", "\xC3\xA9"},
      {"xe\xCC\x81y", "x\xC3\xA9y"},
      {"a\xCC\x81\xCC\xA3", "\xE1\xBA\xA1\xCC\x81"},             // marks are put in order first
      {"\xE2\x84\xAB", "\xC3\x85"},                              // the sign of an angstrom
      {"\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "\xED\x95\x9C"},  // Hangul
      {"\xED\x95\x98\xE1\x86\xAB", "\xED\x95\x9C"},
      {"\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC"},  // stays apart
      {"\xCC\x81", "\xCC\x81"},
      {"\xEF\xAC\x81", "\xEF\xAC\x81"},  // a ligature is another character, not another form
  };
  for (const auto& [text, expected] : kCases) EXPECT_EQ(composed(text), expected);
}

TEST(ComposedText, LeavesCharactersThatCameAfterUnicode9) {
  // Unicode 13 composes U+11935 U+11930 to U+11938.
  const std::string text = "\xF0\x91\xA4\xB5\xF0\x91\xA4\xB0";
  EXPECT_EQ(composed(text), text);
}

TEST(ComposedText, IsAViewOfTheTextWhereNothingChanges) {
  std::string storage;
  const std::string text = "plain text, \xC3\xA9, \xE4\xB8\xAD";
  EXPECT_EQ(composed_text(text, storage).data(), text.data());
}

TEST(ComposedText, ChangesNothingTheSecondTime) {
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    const std::string once = composed(random_text(seed, 60, seed % 2));
    ASSERT_EQ(composed(once), once) << seed;
  }
}

TEST(ComposedText, KeepsBytesThatAreNotUtf8) {
  EXPECT_EQ(composed("\xFF"
                     "e\xCC\x81\xCC"),
            "\xFF\xC3\xA9\xCC");
  EXPECT_EQ(composed("e\xFF\xCC\x81"), "e\xFF\xCC\x81") << "nothing combines across them";
}

}  // namespace
}  // namespace infini
