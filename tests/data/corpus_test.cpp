#include "data/corpus.h"

#include "tensor/error.h"
#include "tests/data/compressed_files.h"
#include "tests/data/fixtures.h"

namespace infini {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<Document> read_all(const Corpus& corpus, const std::string& split,
                               ReadCounts* counts = nullptr) {
  std::vector<Document> documents;
  const ReadCounts read = corpus.read(split, [&](Document&& document) {
    documents.push_back(std::move(document));
    return true;
  });
  if (counts) *counts = read;
  return documents;
}

TEST(Corpus, ReadsTheLayoutOfPg19) {
  const TempFolder folder;
  put_file(folder / "train/90.txt", "The Son\n");
  put_file(folder / "train/119.txt", "A  Tramp\r\nAbroad");
  put_file(folder / "train/7.txt", "");
  put_file(folder / "validation/85.txt", "Beasts \xFF");
  put_file(folder / "test/1.txt", "x");
  put_file(
      folder / "metadata.csv",
      "85,The Beasts of Tarzan by Edgar Rice Burroughs,1914,http://www.gutenberg.org/ebooks/85\n"
      "119,A Tramp Abroad by Mark Twain,1880,http://www.gutenberg.org/ebooks/119\n");
  const Corpus corpus(folder.path());
  EXPECT_EQ(corpus.format(), CorpusFormat::kPg19);
  EXPECT_THAT(corpus.splits(), ElementsAre("train", "validation", "test"));
  ReadCounts counts;
  const auto train = read_all(corpus, "train", &counts);
  ASSERT_EQ(train.size(), 2u);
  EXPECT_EQ(counts.empty, 1);
  EXPECT_EQ(train[0].name, "119");
  EXPECT_EQ(train[0].title, "A Tramp Abroad by Mark Twain");
  EXPECT_EQ(train[0].text, "A  Tramp\r\nAbroad");
  EXPECT_EQ(train[0].words(), 3);
  EXPECT_EQ(train[1].title, "") << "a book without a row is fine";
  EXPECT_EQ(read_all(corpus, "validation")[0].text, "Beasts \xFF") << "invalid UTF-8 is kept";
}

TEST(Corpus, NamesAMalformedRowOfMetadata) {
  const TempFolder folder;
  put_file(folder / "train/90.txt", "x");
  put_file(folder / "metadata.csv", "85,Title,1914,link\n90,Title, with a comma,1914,link\n");
  EXPECT_THAT(
      message_of<DataError>([&] { Corpus(folder.path()); }),
      HasSubstr(
          "metadata.csv:2: expected `id,title,year,link` without quotes, got '90,Title, with"));
}

TEST(Corpus, ReadsFoldersOfTextInOrder) {
  const TempFolder folder;
  put_file(folder / "b/two.txt", "2");
  put_file(folder / "a/deep/one.txt", "1");
  put_file(folder / "c.txt", "3");
  put_file(folder / "c.md", "not this");
  put_file(folder / "test/t.txt", "t");
  const Corpus corpus(folder.path());
  const auto train = read_all(corpus, "train");
  ASSERT_EQ(train.size(), 3u);
  EXPECT_EQ(train[0].name, "a/deep/one.txt");
  EXPECT_EQ(train[1].name, "b/two.txt");
  EXPECT_EQ(train[2].name, "c.txt");
  EXPECT_EQ(read_all(corpus, "test")[0].text, "t");
  EXPECT_EQ(read_all(Corpus(folder / "c.txt"), "train")[0].text, "3");
}

TEST(Corpus, ReadsJsonLinesPlainAndCompressed) {
  const TempFolder folder;
  std::string long_text;
  for (int i = 0; i < 300000; ++i) long_text += static_cast<char>('a' + i % 23 * 7 % 23);
  const std::string lines =
      "{\"text\": \"a \\u00e9\\n\", \"meta\": {}}\n\n{\"text\": \"\"}\n{\"text\": \"" + long_text +
      "\"}";
  put_file(folder / "train/0.jsonl", lines);
  put_file(folder / "train/1.jsonl.gz", gzip(lines));
  put_file(folder / "train/2.jsonl.zst", zstd(lines));
  put_file(folder / "train/3.jsonl.zst",
           zstd(lines.substr(0, 9)) + zstd(lines.substr(9)));  // two frames
  ReadCounts counts;
  const auto train = read_all(Corpus(folder.path()), "train", &counts);
  ASSERT_EQ(train.size(), 8u);
  EXPECT_EQ(counts.empty, 4);
  for (std::size_t i = 0; i < 8; i += 2) {
    EXPECT_EQ(train[i].text, "a \xC3\xA9\n");
    EXPECT_EQ(train[i + 1].text, long_text);
  }
  EXPECT_EQ(train[1].name, "train/0.jsonl:4");
  EXPECT_EQ(read_all(Corpus(folder / "train/1.jsonl.gz"), "train").size(), 2u);
}

TEST(Corpus, KeepsInvalidUtf8InJson) {
  const TempFolder folder;
  const std::string odd = "caf\xE9 \xFF\xC3\xA9 \xF0\x9F";
  put_file(folder / "a.jsonl", "{\"text\": \"" + odd + "\\u00e9\"}\n");
  EXPECT_EQ(read_all(Corpus(folder.path()), "train")[0].text, odd + "\xC3\xA9");
}

TEST(Corpus, NamesFileAndLineOfMalformedJson) {
  const TempFolder folder;
  const std::string path = folder / "a.jsonl";
  for (const char* bad :
       {"{\"text\": \"b\"", "[1]", "{\"txt\": \"b\"}", "{\"text\": 3}", "nonsense"}) {
    put_file(path, std::string("{\"text\": \"a\"}\n\n") + bad + "\n");
    EXPECT_THAT(message_of<DataError>([&] { read_all(Corpus(path), "train"); }),
                HasSubstr(path + ":3: expected a JSON object with a string `text`, got '" + bad));
  }
}

TEST(Corpus, RefusesDamagedCompression) {
  const TempFolder folder;
  std::string lines;
  for (int i = 0; i < 5000; ++i) lines += "{\"text\": \"" + std::to_string(i * 7919) + "\"}\n";
  put_file(folder / "a.jsonl.zst", zstd(lines).substr(0, 5000));
  EXPECT_THAT(message_of<DataError>([&] { read_all(Corpus(folder / "a.jsonl.zst"), "train"); }),
              HasSubstr("a.jsonl.zst: truncated zstd file"));
  put_file(folder / "b.jsonl.zst", "not zstd at all");
  EXPECT_THAT(message_of<DataError>([&] { read_all(Corpus(folder / "b.jsonl.zst"), "train"); }),
              HasSubstr("b.jsonl.zst: damaged zstd file"));
  put_file(folder / "c.jsonl.gz", gzip(lines));
  std::filesystem::resize_file(folder / "c.jsonl.gz", 5000);
  EXPECT_THAT(message_of<DataError>([&] { read_all(Corpus(folder / "c.jsonl.gz"), "train"); }),
              HasSubstr("c.jsonl.gz: damaged or truncated gzip file"));
}

TEST(Corpus, TakesWhatMetaSays) {
  const TempFolder folder;
  put_file(folder / "a.jsonl.gz",
           gzip("{\"text\": \"1\", \"meta\": \"{\\\"config\\\": \\\"arxiv\\\"}\"}\n"
                "{\"text\": \"2\", \"meta\": {\"config\": \"wiki\"}}\n"
                "{\"text\": \"3\", \"meta\": {\"config\": \"arxiv\", \"file\": \"f\"}}\n"
                "{\"text\": \"4\"}\n"));
  ReadCounts counts;
  const CorpusRules rules{.where = {{"config", "arxiv"}}};
  const auto documents =
      read_all(Corpus(folder.path(), CorpusFormat::kAuto, rules), "train", &counts);
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].text, "1");
  EXPECT_EQ(documents[0].name, "a.jsonl.gz:1");
  EXPECT_EQ(documents[1].name, "f");
  EXPECT_EQ(counts.summary(), "2 with another `meta` (the first: config=wiki)");
  EXPECT_EQ(counts.skipped(), 2);
  put_file(folder / "b/a.txt", "a");
  EXPECT_THAT(message_of<ConfigError>([&] { Corpus(folder / "b", CorpusFormat::kAuto, rules); }),
              HasSubstr("where looks at the `meta` of JSON lines"));
  EXPECT_EQ(parse_where("a=b=c"), (std::pair<std::string, std::string>{"a", "b=c"}));
  EXPECT_EQ(message_of<ConfigError>([] { parse_where("arxiv"); }),
            "where: expected key=value, got 'arxiv'");
}

TEST(Corpus, SkipsAndCountsWhatIsBrokenIfAsked) {
  const TempFolder folder;
  std::string lines;
  for (int i = 0; i < 5000; ++i) lines += "{\"text\": \"" + std::to_string(i * 7919) + "\"}\n";
  put_file(folder / "a.jsonl.zst", zstd("{\"text\": \"a\"}\n") + zstd(lines).substr(0, 5000));
  put_file(folder / "b.jsonl", "{\"text\": \"b\"}\n{\"text\": \n\n{}\n{\"text\": \"c\"}");
  put_file(folder / "c.jsonl.gz", "");
  ReadCounts counts;
  const auto documents = read_all(
      Corpus(folder.path(), CorpusFormat::kAuto, {.broken = OnFault::kSkip}), "train", &counts);
  ASSERT_GE(documents.size(), 3u);
  EXPECT_EQ(documents.front().text, "a");
  EXPECT_EQ(documents.back().text, "c");
  EXPECT_EQ(documents.back().name, "b.jsonl:5");
  EXPECT_EQ(counts.broken_lines, 2);
  EXPECT_EQ(counts.cut_files, 2);
  EXPECT_THAT(counts.summary(), HasSubstr("2 broken lines, 2 damaged files; the first: "));
  EXPECT_THAT(counts.first_fault, HasSubstr("a.jsonl.zst: truncated zstd file"));
  EXPECT_THAT(message_of<ConfigError>(
                  [&] { Corpus(folder.path(), CorpusFormat::kAuto, {.broken = OnFault::kKeep}); }),
              HasSubstr("broken must be refuse or skip"));
}

TEST(Corpus, DoesNotTakeItsReadersErrorsForDamage) {
  const TempFolder folder;
  put_file(folder / "a.jsonl", "{\"text\": \"a\"}\n");
  const Corpus corpus(folder.path(), CorpusFormat::kAuto, {.broken = OnFault::kSkip});
  EXPECT_EQ(message_of<DataError>([&] {
              corpus.read("train", [](Document&&) -> bool { throw DataError("the disk is full"); });
            }),
            "the disk is full");
}

TEST(Corpus, KeepsSkipsOrRefusesWhatIsNotUtf8) {
  const TempFolder folder;
  put_file(folder / "lines/a.jsonl", "{\"text\": \"caf\xE9\"}\n{\"text\": \"caf\xC3\xA9\"}\n");
  put_file(folder / "texts/a.txt", "caf\xE9");
  put_file(folder / "texts/b.txt", "caf\xC3\xA9");
  for (const char* name : {"lines", "texts"}) {
    const auto corpus = [&](OnFault invalid) {
      return Corpus(folder / name, CorpusFormat::kAuto, {.invalid_utf8 = invalid});
    };
    ReadCounts counts;
    EXPECT_EQ(read_all(corpus(OnFault::kKeep), "train", &counts).size(), 2u);
    EXPECT_EQ(counts.summary(), "1 not UTF-8, kept");
    EXPECT_EQ(counts.skipped(), 0);
    EXPECT_EQ(read_all(corpus(OnFault::kSkip), "train", &counts).size(), 1u);
    EXPECT_EQ(counts.summary(), "1 not UTF-8, skipped");
    EXPECT_EQ(counts.skipped(), 1);
    EXPECT_THAT(message_of<DataError>([&] { read_all(corpus(OnFault::kRefuse), "train"); }),
                HasSubstr("expected a text in UTF-8, got other bytes"));
  }
}

TEST(Corpus, DecompressesTexts) {
  const TempFolder folder;
  put_file(folder / "pg19/train/7.txt.gz", gzip("A  Tramp"));
  put_file(folder / "pg19/train/8.txt.zst", zstd("Abroad"));
  put_file(folder / "pg19/metadata.csv", "8,Title,1914,link\n");
  const auto books = read_all(Corpus(folder / "pg19"), "train");
  ASSERT_EQ(books.size(), 2u);
  EXPECT_EQ(books[0].name, "7");
  EXPECT_EQ(books[0].text, "A  Tramp");
  EXPECT_EQ(books[1].title, "Title");
  put_file(folder / "a.gz", gzip("{\"text\": \"b\"}"));
  EXPECT_EQ(read_all(Corpus(folder / "a.gz", CorpusFormat::kJsonl), "train")[0].text, "b");
  EXPECT_EQ(read_all(Corpus(folder / "a.gz", CorpusFormat::kText), "train")[0].name, "a.gz");
}

TEST(Corpus, CountsWordsAsPythonSplitsThem) {
  const auto words = [](std::string text) { return Document{{}, {}, std::move(text)}.words(); };
  EXPECT_EQ(words(""), 0);
  EXPECT_EQ(words(" \n\n "), 0);
  EXPECT_EQ(words("\tone,  two--three\r\n\n\xC2\xA0"
                  "four "),
            3);
  for (std::uint32_t c = 0; c < 0x3100; ++c) {
    const bool space = (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 ||
                       c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
                       c == 0x202F || c == 0x205F || c == 0x3000;
    std::string text = "a";
    append_utf8(text, c);
    EXPECT_EQ(words(text + "b"), 1 + space) << c;
    EXPECT_EQ(words(text), 1) << c;
  }
  for (const char* cut : {"\xC2", "\xE2\x80", "\xE3\x80", "\xE1"}) {
    EXPECT_EQ(words(cut), 1);
    EXPECT_EQ(words(std::string("a") + cut + "b"), 1);
  }
}

TEST(Corpus, RefusesWhatIsNotThere) {
  const TempFolder folder;
  EXPECT_THAT(message_of<DataError>([&] { Corpus(folder / "none"); }),
              HasSubstr("none: no such corpus"));
  EXPECT_THAT(message_of<DataError>([&] { Corpus(folder.path()); }),
              HasSubstr("holds no documents"));
  put_file(folder / "a.txt", "a");
  put_file(folder / "b.jsonl", "{\"text\": \"b\"}");
  EXPECT_THAT(message_of<ConfigError>([&] { Corpus(folder.path()); }),
              HasSubstr("holds .txt and .jsonl files; expected a format"));
}

TEST(Corpus, StopsWhenItsReaderHasEnough) {
  const TempFolder folder;
  put_file(folder / "a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n");
  put_file(folder / "b.jsonl", "{\"text\": \"c\"}\n");
  int seen = 0;
  Corpus(folder.path()).read("train", [&](Document&&) { return ++seen < 1; });
  EXPECT_EQ(seen, 1);
}

}  // namespace
}  // namespace infini
