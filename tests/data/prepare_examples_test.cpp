// Example stores from BookSum's forms, small ones and those that lie beside the checkout.
#include <algorithm>
#include <map>

#include "data/durable_file.h"
#include "data/example_store.h"
#include "data/line_reader.h"
#include "data/prepare.h"
#include "tensor/error.h"
#include "tests/data/booksum_files.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class PrepareExamples : public ::testing::Test {
 protected:
  PrepareOptions options(const fs::path& corpus, const std::string& output) const {
    return {.corpus = corpus,
            .output = folder_ / output,
            .format = CorpusFormat::kBooksum,
            .tokenizer = TokenizerKind::kByte,
            .threads = 2};
  }
  TempFolder folder_;
};

TEST_F(PrepareExamples, StoresEachDocumentOnceAndEachSummaryAsAnExample) {
  put_booksum(folder_ / "corpus");
  const PrepareReport report = prepare(options(folder_ / "corpus", "out"));
  ASSERT_EQ(report.splits.size(), 2u);
  EXPECT_EQ(report.splits[0].documents, 4);
  EXPECT_EQ(report.splits[0].examples, 6);
  EXPECT_EQ(report.splits[1].examples, 1);
  EXPECT_TRUE(report.missing.empty());
  const auto store = ExampleStore::open(folder_ / "out/train.h5");
  std::vector<std::string> found;
  for (const StoredExample& example : store->examples()) {
    EXPECT_EQ(store->tokenizer().decode(store->summary_tokens(example)),
              store->summary_text(example));
    found.push_back(text(example.document, " ", name_of(example.level), " ", example.source, ": ",
                         store->summary_text(example)));
  }
  EXPECT_THAT(found, ElementsAre("0 book shmoop: One, says shmoop.",
                                 "0 book sparknotes: One, say sparknotes.", "1 book shmoop: Two.",
                                 "2 chapter shmoop: It begins.", "2 chapter bookwolf: A beginning.",
                                 "3 chapter shmoop: It ends."));
  EXPECT_EQ(store->documents()->documents()[0].name,
            "all_chapterized_books/1-chapters/book_clean.txt");
  EXPECT_EQ(store->tokenizer().decode(store->documents()->read(store->documents()->documents()[0])),
            "The first book.\nIt is long.\n");
}

TEST_F(PrepareExamples, RecognisesATextThatComesAgain) {
  put_file(folder_ / "train.csv",
           "source,chapter,summary\na,First.,One.\nb,Second.,Two.\nc,First.,Three.\n");
  const PrepareReport report = prepare(options(folder_.path(), "out"));
  EXPECT_EQ(report.splits[0].documents, 2);
  EXPECT_EQ(report.splits[0].examples, 3);
  const auto store = ExampleStore::open(folder_ / "out/train.h5");
  EXPECT_EQ(store->examples()[2].document, 0);
  EXPECT_EQ(store->examples()[2].source, "c");
}

TEST_F(PrepareExamples, WritesTheSameBytesWhateverTheThreadsAndTheCompression) {
  put_booksum(folder_ / "a");
  put_booksum(folder_ / "b");
  for (const auto& entry : fs::recursive_directory_iterator(folder_ / "b"))
    if (entry.is_regular_file() && entry.path().extension() != ".zst") {
      fs::path packed = entry.path();
      put_file(packed += ".zst", zstd(read_file(entry.path())));
      fs::remove(entry.path());
    }
  auto one = options(folder_ / "a", "one"), two = options(folder_ / "b", "two");
  for (PrepareOptions* each : {&one, &two}) {
    each->tokenizer = TokenizerKind::kSentencePiece;
    each->vocabulary = 300;
  }
  one.threads = 1;
  prepare(one);
  prepare(two);
  for (const char* name : {"train.h5", "test.h5", "tokenizer.model"})
    EXPECT_EQ(hash_file(folder_ / "one" / name), hash_file(folder_ / "two" / name)) << name;
}

TEST_F(PrepareExamples, GoesOnWithoutMissingFilesAndListsThem) {
  put_booksum(folder_ / "corpus");
  prepare(options(folder_ / "corpus", "out"));
  fs::remove(folder_ / "corpus/all_chapterized_books/3-chapters/book_clean.txt");
  fs::remove(folder_ / "corpus/finished_summaries/shmoop/Two/overview.json");
  const PrepareReport report = prepare(options(folder_ / "corpus", "out"));
  EXPECT_EQ(report.splits[0].examples, 5);
  EXPECT_EQ(report.splits[1].examples, 0);
  EXPECT_FALSE(fs::exists(folder_ / "out/test.h5")) << "an older one would pass for this one";
  EXPECT_EQ(read_file(report.missing),
            "train\tfinished_summaries/shmoop/Two/overview.json\n"
            "test\tall_chapterized_books/3-chapters/book_clean.txt\n");

  fs::remove_all(folder_ / "corpus/finished_summaries");
  for (const auto kind : {TokenizerKind::kByte, TokenizerKind::kSentencePiece}) {
    auto nothing = options(folder_ / "corpus", "nothing");
    nothing.tokenizer = kind;
    EXPECT_EQ(message_of<DataError>([&] { prepare(nothing); }),
              "prepare: no example is left: train: 6 missing files, 6 examples without them; test: "
              "2 missing files, 1 example without them; " +
                  (folder_ / "nothing/missing.txt").string() + " lists the missing files");
    EXPECT_THAT(read_file(folder_ / "nothing/missing.txt"), HasSubstr("/Three/overview.json\n"));
  }
}

TEST_F(PrepareExamples, TakesTheLevelsThatAreWanted) {
  put_booksum(folder_ / "corpus");
  auto chapters = options(folder_ / "corpus", "out");
  chapters.level = WantedLevels::kChapter;
  const PrepareReport report = prepare(chapters);
  ASSERT_EQ(report.splits.size(), 1u);
  EXPECT_THAT(report.splits[0].summaries.given, ElementsAre(0, 3));
  chapters.format = CorpusFormat::kText;
  EXPECT_THAT(message_of<ConfigError>([&] { prepare(chapters); }),
              HasSubstr("level chooses among the summaries of format booksum"));
}

// ---- What lies beside the checkout, where it does.

const fs::path kShared = INFINI_SOURCE_DIR "/../shared/data";

// Unpacks a tar archive of plain files with short names.
void unpack(const fs::path& archive, const fs::path& folder) {
  const std::string bytes = read_decompressed(archive);
  for (std::size_t at = 0; at + 512 <= bytes.size() && bytes[at] != '\0';) {
    const auto field = [&](std::size_t begin, std::size_t size) {
      const std::string text = bytes.substr(at + begin, size);
      return text.substr(0, text.find('\0'));
    };
    const std::string prefix = field(345, 155),
                      name = prefix.empty() ? field(0, 100) : prefix + "/" + field(0, 100);
    const std::size_t size = std::stoull(field(124, 12), nullptr, 8);
    if (bytes[at + 156] == '0')
      put_file(folder / name, std::string_view(bytes).substr(at + 512, size));
    at += 512 + (size + 511) / 512 * 512;
  }
}

class BooksumOnDisk : public PrepareExamples {
 protected:
  void SetUp() override {
    if (!fs::exists(kShared / "booksum")) GTEST_SKIP() << "there is no " << kShared / "booksum";
  }
  static std::int64_t lines(const fs::path& file) {
    const std::string bytes = read_file(file);
    return std::ranges::count(bytes, '\n');
  }
};

TEST_F(BooksumOnDisk, TheOriginalsAlignmentsHaveTheirKnownCounts) {
  unpack(kShared / "booksum/salesforce-booksum-alignments.tar.zst", folder_ / "original");
  const auto reader = open_summaries(folder_ / "original", {});
  const std::map<std::string, std::array<std::int64_t, 2>> known = {
      {"train", {314, 9713}}, {"validation", {45, 1485}}, {"test", {46, 1432}}};
  for (const auto& [split, counts] : known) {
    const SummaryCounts found = reader->read(split, [](SummarizedDocument&&) { return true; });
    EXPECT_EQ(found.listed, counts) << split;
    EXPECT_EQ(found.without_file, counts[0] + counts[1]) << split;
    EXPECT_GT(found.missing.size(), 2000u) << split;
  }
  EXPECT_THAT(message_of<DataError>([&] { prepare(options(folder_ / "original", "out")); }),
              HasSubstr("no example is left: train: 15076 missing files, 10027 examples without"));
  EXPECT_EQ(lines(folder_ / "out/missing.txt"), 19549);
}

TEST_F(BooksumOnDisk, TheFreeSetHasItsPairs) {
  unpack(kShared / "booksum/booksum-free.tar.zst", folder_ / "free");
  const PrepareReport report = prepare(options(folder_ / "free", "out"));
  std::array<std::int64_t, 2> pairs = {};
  for (const PreparedSplit& split : report.splits)
    for (std::size_t level = 0; level < 2; ++level) pairs[level] += split.summaries.given[level];
  EXPECT_THAT(pairs, ElementsAre(51, 99));
  EXPECT_TRUE(report.missing.empty());
  EXPECT_EQ(ExampleStore::open(folder_ / "out/test.h5")->examples().size(), 8u + 24u);
}

TEST_F(BooksumOnDisk, TablesAndTreeHoldTheSameChapters) {
  unpack(kShared / "booksum/booksum-free.tar.zst", folder_ / "free");
  const auto chapters = [](const fs::path& path) {
    std::map<std::string, std::string> texts;
    const auto reader = open_summaries(path, {.levels = WantedLevels::kChapter});
    for (const std::string& split : reader->splits())
      reader->read(split, [&](SummarizedDocument&& document) {
        texts[split + document.document.text] = document.summaries.at(0).text;
        return true;
      });
    return texts;
  };
  const auto tree = chapters(folder_ / "free");
  EXPECT_EQ(tree.size(), 99u);
  EXPECT_EQ(chapters(kShared / "booksum/kmfoda-style"), tree);
}

}  // namespace
}  // namespace infini
