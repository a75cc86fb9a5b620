#include "data/json_document.h"

#include "data/units.h"
#include "tensor/error.h"
#include "tests/data/compressed_files.h"
#include "tests/data/fixtures.h"

namespace infini {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(JsonDocument, ReadsMetaAsRedPajamaHasIt) {
  const JsonDocument document = parse_json_document(
      R"({"text": "\\section{A}", "meta": {"timestamp": "2018-09-04T12:00:00", "yymm": "1809",)"
      R"( "arxiv_id": "1809.00001", "language": "en", "url": "https://arxiv.org/abs/1809.00001"}})");
  EXPECT_EQ(document.text, "\\section{A}");
  EXPECT_EQ(document.name(), "1809.00001");
  EXPECT_EQ(document.meta.at("yymm"), "1809");
  EXPECT_EQ(document.meta.size(), 5u);
  EXPECT_EQ(document.title(), "");
}

TEST(JsonDocument, ReadsMetaAsProofPileHasIt) {
  const JsonDocument document = parse_json_document(
      R"({"text": "a", "meta": "{\"config\": \"arxiv\", \"file\": \"x/1.tex\", \"title\": \"T\"}"})");
  EXPECT_EQ(document.meta.at("config"), "arxiv");
  EXPECT_EQ(document.name(), "x/1.tex");
  EXPECT_EQ(document.title(), "T");
}

TEST(JsonDocument, TakesAnyMeta) {
  EXPECT_EQ(parse_json_document(R"({"meta": "none", "text": "a"})").meta.size(), 0u);
  EXPECT_EQ(parse_json_document(R"({"meta": [1], "text": "a"})").name(), "");
  EXPECT_EQ(parse_json_document(R"({"meta": null, "text": "a", "text": "b"})").text, "b");
  const auto meta =
      parse_json_document(R"({"text": "a", "meta": {"arxiv_id": null, "n": 3, "b": true,)"
                          R"( "path": ["x", "y"], "url": "u"}})")
          .meta;
  const std::map<std::string, std::string> expected = {
      {"n", "3"}, {"b", "true"}, {"path", R"(["x","y"])"}, {"url", "u"}};
  EXPECT_EQ(meta, expected);
}

TEST(JsonDocument, KeepsEveryByteOfRandomTexts) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const std::string text = random_text(seed, 60, seed % 2);
    const JsonDocument document = parse_json_document(
        "{\"meta\": {\"title\": " + json_string(text) + "}, \"text\":" + json_string(text) + " }");
    EXPECT_EQ(document.text, text) << "seed " << seed;
    EXPECT_EQ(document.title(), text) << "seed " << seed;
  }
}

TEST(JsonDocument, SaysWhatIsMissing) {
  const auto message = [](const std::string& line) {
    return message_of<DataError>([&] { parse_json_document(line); });
  };
  EXPECT_EQ(
      message(R"({"txt": "b"})"),
      R"(expected a JSON object with a string `text`, got '{"txt": "b"}' (it has no `text`))");
  EXPECT_THAT(message(R"({"text": 3})"), HasSubstr("(its `text` is of type number)"));
  EXPECT_THAT(message("[1]"), HasSubstr("(it is of type array)"));
  EXPECT_THAT(message(R"({"text": "b)"), HasSubstr("(the line ends within it, after 11 bytes)"));
  EXPECT_THAT(message(R"({"text": b})"), HasSubstr("(no JSON from byte 10 on)"));
  EXPECT_THAT(message("{\"text\": \"\x1B[2J\xFF\"}"), HasSubstr("got '{\"text\": \"?[2J?\"}'"));
  EXPECT_THAT(message(R"({"text": "\ud800"})"), HasSubstr("no JSON from byte 17 on"));
  EXPECT_THAT(message(std::string(100'000, '[')), HasSubstr("ends within it, after 100000 bytes"));
  EXPECT_LT(message(std::string(100'000, '[')).size(), 250u);
}

// The message of a refusal, empty without one: nothing else may happen, whatever the line is.
std::string refusal(const std::string& line) {
  try {
    parse_json_document(line);
    return {};
  } catch (const DataError& error) {
    const std::string message = error.what();
    EXPECT_THAT(message, StartsWith("expected a JSON object with a string `text`, got '"));
    EXPECT_TRUE(is_utf8(message));
    for (const char c : message) EXPECT_FALSE(c >= 0 && c < ' ') << message;
    return message;
  }
}

std::string random_line(std::uint64_t seed) {
  return "{\"text\": " + json_string(random_text(seed, 12, seed % 2)) +
         ", \"n\": [-1.5e3, true, {\"a\": null}], \"meta\": {\"arxiv_id\": \"\\u00e9\", \"k\": "
         "{}}}";
}

TEST(JsonDocument, RefusesEveryCutOfALine) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const std::string line = random_line(seed);
    EXPECT_EQ(refusal(line), "");
    for (std::size_t length = 0; length < line.size(); ++length)
      EXPECT_THAT(refusal(line.substr(0, length)), HasSubstr("the line ends within it"))
          << line.substr(0, length);
  }
}

TEST(JsonDocument, AnswersGarbledLinesWithADocumentOrARefusal) {
  const RandomKey random{11, 0, 0};
  std::uint64_t drawn = 0;
  const auto below = [&](std::uint64_t bound) { return random.below(drawn++, bound); };
  static const std::string marks = "{}[]\",:\\u0e-.tfn \xFF\xF4\x8F\xBC\xC3";
  int refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string line = random_line(static_cast<std::uint64_t>(i % 50));
    for (std::uint64_t k = 0, changes = 1 + below(4); k < changes && !line.empty(); ++k) {
      const std::size_t at = below(line.size());
      const char c = below(2) ? marks[below(marks.size())] : static_cast<char>(below(256));
      if (const auto kind = below(4); kind == 0) {
        line[at] = c;
      } else if (kind == 1) {
        line.insert(at, 1, c);
      } else if (kind == 2) {
        line.erase(at, 1 + below(10));
      } else {
        line.insert(at, line.substr(below(line.size()), below(40)));
      }
    }
    refused += !refusal(line).empty();
  }
  EXPECT_GT(refused, 5'000);
  EXPECT_LT(refused, 20'000);
}

}  // namespace
}  // namespace infini
