#include "data/line_reader.h"

#include "tensor/error.h"
#include "tests/data/compressed_files.h"
#include "tests/data/fixtures.h"

namespace infini {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> lines_of(const std::filesystem::path& path,
                                  std::int64_t longest = LineReader::kLongest) {
  LineReader reader(path, longest);
  std::vector<std::string> lines;
  for (std::string line; reader.next(line);)
    lines.push_back(line + (reader.too_long() ? "..." : ""));
  EXPECT_EQ(reader.number(), static_cast<std::int64_t>(lines.size()));
  return lines;
}

TEST(LineReader, GivesEveryLineWhereverBuffersEnd) {
  const TempFolder folder;
  std::string text;
  std::vector<std::string> expected;
  for (const int length : {0, 1, (1 << 18) - 4, 0, 7, (1 << 18) - 1, 1 << 18, 700'000, 0}) {
    expected.emplace_back(static_cast<std::size_t>(length), static_cast<char>('a' + length % 26));
    text += expected.back() + "\n";
  }
  put_file(folder / "a", text);
  put_file(folder / "a.gz", gzip(text));
  put_file(folder / "a.zst", zstd(text));
  put_file(folder / "b.gz", gzip(text.substr(0, 300'000)) + gzip(text.substr(300'000)));
  for (const char* name : {"a", "a.gz", "a.zst", "b.gz"}) {
    EXPECT_EQ(lines_of(folder / name), expected) << name;
    EXPECT_EQ(read_decompressed(folder / name), text) << name;
  }
  put_file(folder / "end", "a\n\nb");
  EXPECT_THAT(lines_of(folder / "end"), ElementsAre("a", "", "b"));
  put_file(folder / "nothing", "");
  EXPECT_THAT(lines_of(folder / "nothing"), ElementsAre());
}

TEST(LineReader, HoldsOnlyTheBeginningOfALongLine) {
  const TempFolder folder;
  put_file(folder / "a", "12345\n" + std::string(1 << 20, 'x') + "\n123456\n");
  EXPECT_THAT(lines_of(folder / "a", 5), ElementsAre("12345", "xxxxx...", "12345..."));
}

TEST(LineReader, RefusesEveryCutOfACompressedFile) {
  const TempFolder folder;
  const std::string text = random_text(3, 40, true) + "\n" + random_text(4, 10, true);
  for (const auto& [name, bytes] :
       {std::pair<std::string, std::string>{"a.gz", gzip(text)}, {"a.zst", zstd(text)}}) {
    for (std::size_t length = 0; length < bytes.size(); ++length) {
      put_file(folder / name, bytes.substr(0, length));
      EXPECT_THROW(read_decompressed(folder / name), DataError) << name << " of " << length;
    }
  }
}

TEST(LineReader, SurvivesDamage) {
  const TempFolder folder;
  const std::string text = random_text(5, 60, false);
  const RandomKey random{6, 0, 0};
  std::uint64_t drawn = 0;
  int refused = 0;
  for (const auto& [name, whole] :
       {std::pair<std::string, std::string>{"a.gz", gzip(text)}, {"a.zst", zstd(text)}}) {
    for (int i = 0; i < 300; ++i) {
      std::string bytes = whole;
      for (int k = 0; k < 1 + i % 3; ++k) {
        const std::size_t at = random.below(drawn++, bytes.size());
        bytes[at] ^= static_cast<char>(1 + random.below(drawn++, 255));
      }
      put_file(folder / name, bytes);
      try {
        lines_of(folder / name);
      } catch (const DataError& error) {
        ++refused;
        EXPECT_THAT(error.what(), HasSubstr(name + ": "));
      }
    }
  }
  EXPECT_GT(refused, 300);
}

TEST(LineReader, RefusesAPlainFileThatIsNamedAsCompressed) {
  const TempFolder folder;
  put_file(folder / "a.gz", "{\"text\": \"a\"}\n");
  EXPECT_THAT(message_of<DataError>([&] { lines_of(folder / "a.gz"); }),
              HasSubstr("a.gz: is no gzip file"));
  EXPECT_THAT(message_of<DataError>([&] { LineReader(folder / "none"); }),
              HasSubstr("none: cannot be opened"));
}

}  // namespace
}  // namespace infini
