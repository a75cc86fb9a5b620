#include "data/csv_reader.h"

#include "tensor/error.h"
#include "tests/data/compressed_files.h"
#include "tests/data/fixtures.h"

namespace infini {
namespace {

using Record = std::vector<std::string>;
using testing::HasSubstr;

class CsvRecords : public ::testing::Test {
 protected:
  std::filesystem::path file(std::string_view bytes, const std::string& name = "a.csv") {
    put_file(folder_ / name, bytes);
    return folder_ / name;
  }
  static std::vector<Record> read(const std::filesystem::path& path) {
    CsvReader reader(path);
    std::vector<Record> records;
    for (Record record; reader.next(record);) records.push_back(record);
    return records;
  }
  std::string refusal(std::string_view bytes, std::int64_t longest = LineReader::kLongest) {
    const auto path = file(bytes);
    const std::string message = message_of<DataError>([&] {
      CsvReader reader(path, longest);
      for (Record record; reader.next(record);) {
      }
    });
    EXPECT_TRUE(message.starts_with(path.string())) << message;
    return message.substr(std::min(message.size(), path.string().size()));
  }
  TempFolder folder_;
};

TEST_F(CsvRecords, FollowTheStandard) {
  EXPECT_EQ(read(file("a,b\r\n1,2\r\n")), (std::vector<Record>{{"a", "b"}, {"1", "2"}}));
  EXPECT_EQ(read(file("\xEF\xBB\xBF"
                      "a,,b\n\n\r\n,\n\"\"\n")),
            (std::vector<Record>{{"a", "", "b"}, {"", ""}, {""}}));
  EXPECT_EQ(read(file("\"a\"\"b\",\"c,d\",\"e\nf\r\ng\"\n\"\"\"\"\"\"")),
            (std::vector<Record>{{"a\"b", "c,d", "e\nf\r\ng"}, {"\"\""}}));
  EXPECT_EQ(read(file("a,")), (std::vector<Record>{{"a", ""}}));
  EXPECT_EQ(read(file("")), std::vector<Record>{});
}

TEST_F(CsvRecords, KnowTheLineTheyBeginOn) {
  CsvReader reader(file("x\n\"a\nb\nc\",d\n\ny\n"));
  std::vector<std::int64_t> lines;
  for (Record record; reader.next(record);) lines.push_back(reader.line());
  EXPECT_EQ(lines, (std::vector<std::int64_t>{1, 2, 6}));
}

// What was written comes back, whatever bytes it holds and however it is compressed.
TEST_F(CsvRecords, ComeBackAsTheyWereWritten) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const RandomKey stream{seed, 0, 77};
    const std::size_t columns = 1 + stream.below(0, 4);
    std::vector<Record> records(1 + stream.below(1, 6), Record(columns));
    std::string bytes;
    std::uint64_t draw = 2;
    for (Record& record : records) {
      for (std::size_t c = 0; c < columns; ++c) {
        const std::string_view alphabet[] = {
            "a", "\"", ",", "\n", "\r", "\r\n", " ", "\xFF", std::string_view("\0", 1), "\xC3\xA9"};
        for (std::uint64_t n = stream.below(draw++, 7); n > 0; --n)
          record[c] += alphabet[stream.below(draw++, std::size(alphabet))];
        const bool plain =
            record[c].find_first_of("\",\n\r") == std::string::npos && !record[c].empty();
        if (c > 0) bytes += ',';
        if (plain && stream.below(draw++, 2)) {
          bytes += record[c];
        } else {
          bytes += '"';
          for (const char byte : record[c])
            bytes += byte == '"' ? std::string("\"\"") : std::string(1, byte);
          bytes += '"';
        }
      }
      bytes += stream.below(draw++, 2) ? "\n" : "\r\n";
    }
    EXPECT_EQ(read(file(bytes)), records) << "seed " << seed;
    EXPECT_EQ(read(file(zstd(bytes), "a.csv.zst")), records) << "seed " << seed;
    EXPECT_EQ(read(file(gzip(bytes), "a.csv.gz")), records) << "seed " << seed;
  }
}

TEST_F(CsvRecords, RefuseWhatIsNoCsv) {
  EXPECT_THAT(refusal("a,b\n\"c\n\nd"), HasSubstr(":2: a quote opens on this line and is never"));
  EXPECT_THAT(refusal("a\n\"b\nc\"d,e\n"), HasSubstr(":3: text behind the closing quote"));
  EXPECT_THAT(refusal("a\n1,b\"c\"\n"), HasSubstr(":2: a quote inside a field that does not"));
  EXPECT_THAT(refusal("\"aaaa\nbbbb\ncccc\ndddd\"\n", 12),
              HasSubstr(":1: a record of more than 12 bytes; is a quote left open?"));
  EXPECT_THAT(refusal("aaaaaaaaaaaaaaaaaaa\n", 12), HasSubstr(":1: a record of more than 12"));
}

// Any bytes are read or refused, and reading ends.
TEST_F(CsvRecords, SurviveAnyBytes) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const RandomKey stream{seed, 0, 78};
    std::string bytes;
    const std::string_view alphabet = std::string_view("\"\",\n\r\0ab", 8);
    for (std::uint64_t i = 0; i < 40; ++i) bytes += alphabet[stream.below(i, alphabet.size())];
    CsvReader reader(file(bytes));
    int records = 0;
    try {
      for (Record record; reader.next(record);) ++records;
    } catch (const DataError&) {
    }
    EXPECT_LE(records, 40);
  }
}

}  // namespace
}  // namespace infini
