#include "data/summaries.h"

#include "data/line_reader.h"
#include "tensor/error.h"
#include "tests/data/booksum_files.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// "document: source: summary", all of a split in order.
std::vector<std::string> pairs(const SummaryReader& reader, const std::string& split,
                               SummaryCounts* counts = nullptr) {
  std::vector<std::string> out;
  const SummaryCounts found = reader.read(split, [&](SummarizedDocument&& document) {
    for (const Summary& summary : document.summaries)
      out.push_back(text(name_of(document.level), " ", document.document.text, ": ", summary.source,
                         ": ", summary.text));
    return true;
  });
  if (counts) *counts = found;
  return out;
}

TEST(SummaryTree, GivesEachDocumentOnceWithAllItsSummaries) {
  const TempFolder folder;
  put_booksum(folder.path());
  for (const fs::path& root : {folder.path(), folder / "alignments", folder / "alignments/"}) {
    const auto reader = open_summaries(root, {});
    EXPECT_THAT(reader->splits(), ElementsAre("train", "test"));
    SummaryCounts counts;
    EXPECT_THAT(pairs(*reader, "train", &counts),
                ElementsAre("book The first book.\nIt is long.\n: shmoop: One, says shmoop.",
                            "book The first book.\nIt is long.\n: sparknotes: One, say sparknotes.",
                            "book The second book.\n: shmoop: Two.",
                            "chapter The first book.\n: shmoop: It begins.",
                            "chapter The first book.\n: bookwolf: A beginning.",
                            "chapter It is long.\n: shmoop: It ends."));
    EXPECT_THAT(counts.listed, ElementsAre(3, 3));
    EXPECT_EQ(counts.given, counts.listed);
    EXPECT_EQ(counts.summary(), "");
    EXPECT_GT(reader->bytes_on_disk("train"), 60);
  }
  EXPECT_THAT(pairs(*open_summaries(folder.path(), {.levels = WantedLevels::kBook}), "train"),
              testing::SizeIs(3));
  const auto chapters = open_summaries(folder.path(), {.levels = WantedLevels::kChapter});
  EXPECT_THAT(chapters->splits(), ElementsAre("train"));
  EXPECT_THAT(pairs(*chapters, "train"), testing::SizeIs(3));
}

TEST(SummaryTree, CountsAndListsMissingFiles) {
  const TempFolder folder;
  put_booksum(folder.path());
  fs::remove(folder / "all_chapterized_books/1-chapters/book_clean.txt");
  fs::remove(folder / "finished_summaries/shmoop/T/section_1_part_0.txt");
  fs::remove(folder / "finished_summaries/sparknotes/One/overview.json");
  SummaryCounts counts;
  EXPECT_THAT(pairs(*open_summaries(folder.path(), {}), "train", &counts), testing::SizeIs(3));
  EXPECT_THAT(counts.missing, ElementsAre("all_chapterized_books/1-chapters/book_clean.txt",
                                          "finished_summaries/sparknotes/One/overview.json",
                                          "finished_summaries/shmoop/T/section_1_part_0.txt"));
  EXPECT_EQ(counts.without_file, 3);
  EXPECT_THAT(counts.given, ElementsAre(1, 2));
  EXPECT_EQ(counts.summary(), "3 missing files, 3 examples without them");
}

TEST(SummaryTree, FindsCompressedFilesAndSummariesOfTheOtherEnding) {
  const TempFolder folder;
  put_booksum(folder.path());
  const auto expected = pairs(*open_summaries(folder.path(), {}), "train");
  for (const char* name : {"all_chapterized_books/1-chapters/book_clean.txt",
                           "alignments/book-level-summary-alignments/"
                           "book_summaries_aligned_train.jsonl",
                           "finished_summaries/shmoop/Two/overview.json"}) {
    put_file(folder / (std::string(name) + ".zst"), zstd(read_decompressed(folder / name)));
    fs::remove(folder / name);
  }
  fs::rename(folder / "finished_summaries/shmoop/One/overview.json",
             folder / "finished_summaries/shmoop/One/overview.txt");
  put_file(folder / "finished_summaries/shmoop/T/section_1_part_0.txt",
           "{\"summary\": [\"It\", \"ends.\"]}");
  EXPECT_EQ(pairs(*open_summaries(folder.path(), {}), "train"), expected);
}

TEST(SummaryTree, RefusesOrSkipsWhatIsBroken) {
  const TempFolder folder;
  put_booksum(folder.path());
  const fs::path alignments =
      folder / "alignments/book-level-summary-alignments/book_summaries_aligned_train.jsonl";
  const std::string good = read_decompressed(alignments);
  const auto refused = [&](const std::string& line) {
    put_file(alignments, good + line + "\n");
    SummaryCounts counts;
    EXPECT_THAT(pairs(*open_summaries(folder.path(), {.broken = OnFault::kSkip}), "train", &counts),
                testing::SizeIs(6))
        << line;
    EXPECT_EQ(counts.read.broken_lines, 1) << line;
    return message_of<DataError>([&] { pairs(*open_summaries(folder.path(), {}), "train"); });
  };
  EXPECT_THAT(refused("{\"bid\": "), HasSubstr("train.jsonl:4: expected a JSON object"));
  EXPECT_THAT(refused("[1]"), HasSubstr(":4: expected a JSON object that names a text and its "
                                        "summary, got JSON of type array"));
  EXPECT_THAT(refused("{\"book_path\": \"a\"}"), HasSubstr("expected a string `summary_path`"));
  EXPECT_THAT(refused("{\"book_path\": 7}"), HasSubstr("`book_path`, it is of type number"));
  EXPECT_THAT(refused("{\"book_path\": \"a\xFF\"}"), HasSubstr("there is no JSON from byte"));
  for (const char* path : {"/etc/passwd", "../secret", "a/../../secret", "", "a\\u0000b"})
    EXPECT_THAT(refused(std::string("{\"book_path\": \"") + path + "\"}"),
                HasSubstr("`book_path` is no path inside the tree"))
        << path;
  put_file(alignments, good);
  put_file(folder / "finished_summaries/shmoop/Two/overview.json", "Plain words.");
  EXPECT_THAT(message_of<DataError>([&] { pairs(*open_summaries(folder.path(), {}), "train"); }),
              HasSubstr("Two/overview.json: expected a JSON object with `summary`, but there is no "
                        "JSON from byte 1 of 12 on"));
}

std::string table(const std::vector<std::vector<std::string>>& records) {
  std::string bytes;
  for (const auto& record : records)
    for (std::size_t i = 0; i < record.size(); ++i) {
      bytes += '"';
      for (const char c : record[i]) bytes += c == '"' ? std::string("\"\"") : std::string(1, c);
      bytes += i + 1 < record.size() ? "\"," : "\"\n";
    }
  return bytes;
}

TEST(SummaryTables, FindTheirColumnsByName) {
  const TempFolder folder;
  put_file(folder / "dev.csv.gz",
           gzip(table({{"bid", "source", "summary", "chapter", "summary_text"},
                       {"1", "shmoop", "{}", "A \"chapter\",\nof two lines.", "Short."},
                       {"1", "gradesaver", "{}", "Another.", ""},
                       {"1", "bookwolf", "{}", "", "Of nothing."}})));
  put_file(folder / "train.csv", table({{"summary", "chapter"},
                                        {summary_file("As JSON."), "A chapter."},
                                        {"As it is.", "A chapter."}}));
  const auto reader = open_summaries(folder.path(), {});
  EXPECT_THAT(reader->splits(), ElementsAre("train", "validation"));
  SummaryCounts counts;
  EXPECT_THAT(pairs(*reader, "validation", &counts),
              ElementsAre("chapter A \"chapter\",\nof two lines.: shmoop: Short."));
  EXPECT_EQ(counts.read.empty, 2);
  EXPECT_THAT(counts.listed, ElementsAre(0, 3));
  EXPECT_THAT(pairs(*reader, "train"),
              ElementsAre("chapter A chapter.: : As JSON.", "chapter A chapter.: : As it is."));

  put_file(folder / "books/whole.csv", table({{"book", "summary"}, {"All of it.", "Some."}}));
  EXPECT_THAT(pairs(*open_summaries(folder / "books/whole.csv", {}), "train"),
              ElementsAre("book All of it.: : Some."));
}

TEST(SummaryTables, RefuseOrSkipWhatIsBroken) {
  const TempFolder folder;
  const auto refused = [&](const std::string& bytes) {
    put_file(folder / "train.csv", bytes);
    return message_of<DataError>([&] { pairs(*open_summaries(folder.path(), {}), "train"); });
  };
  EXPECT_THAT(refused("a,b\n1,2\n"), HasSubstr("train.csv:1: expected a header with `chapter`"));
  EXPECT_THAT(refused("chapter,summary\na,b\n\n1,2,3\n"),
              HasSubstr("train.csv:4: expected 2 fields, as the header has, got 3"));
  EXPECT_THAT(refused("chapter,summary\na,b\nc,\"d\n"), HasSubstr("train.csv:3: a quote opens"));
  put_file(folder / "train.csv", "chapter,summary\na,b\n1\nc,{\ne,f\n\"g,h\n");
  SummaryCounts counts;
  EXPECT_THAT(pairs(*open_summaries(folder.path(), {.broken = OnFault::kSkip}), "train", &counts),
              ElementsAre("chapter a: : b", "chapter e: : f"));
  EXPECT_EQ(counts.read.broken_lines, 2);
  EXPECT_EQ(counts.read.cut_files, 1);
  put_file(folder / "train.csv", "chapter,summary\na\xFF,b\n");
  EXPECT_THAT(message_of<DataError>([&] {
                pairs(*open_summaries(folder.path(),
                                      {.broken = OnFault::kSkip, .invalid_utf8 = OnFault::kRefuse}),
                      "train");
              }),
              HasSubstr("train.csv:2: expected a text in UTF-8"));
}

TEST(SummaryLists, GiveEachSummaryOfARow) {
  const TempFolder folder;
  put_file(folder / "books/train.jsonl",
           "{\"bid\": 7, \"title\": \"T\", \"text\": \"A book.\", \"summary\": [{\"source\": "
           "\"shmoop\", \"text\": \"One.\", \"analysis\": null}, {\"text\": \"Two.\"}, "
           "\"Three.\"]}\n\n{\"text\": \"Another.\", \"summary\": \"Four.\"}\n");
  put_file(folder / "chapters/val.jsonl.zst",
           zstd("{\"chapter_id\": \"c\", \"text\": \"A chapter.\", \"summary\": []}\n"
                "{\"chapter_id\": \"d\", \"text\": \"B\", \"summary\": {\"text\": \"Five.\"}}\n"));
  const auto reader = open_summaries(folder.path(), {});
  EXPECT_THAT(reader->splits(), ElementsAre("train", "validation"));
  EXPECT_THAT(pairs(*reader, "train"),
              ElementsAre("book A book.: shmoop: One.", "book A book.: : Two.",
                          "book A book.: : Three.", "book Another.: : Four."));
  EXPECT_THAT(pairs(*reader, "validation"), ElementsAre("chapter B: : Five."));
  std::vector<std::string> names;
  reader->read("train", [&](SummarizedDocument&& document) {
    names.push_back(document.document.name);
    return names.size() < 5;
  });
  EXPECT_THAT(names, ElementsAre("7", "train.jsonl:3"));
  EXPECT_THAT(pairs(*open_summaries(folder / "books/train.jsonl", {}), "train"),
              testing::SizeIs(4));
}

TEST(SummaryLists, RefuseHostileLines) {
  const TempFolder folder;
  const auto refused = [&](const std::string& line) {
    put_file(folder / "books/train.jsonl", line + "\n");
    return message_of<DataError>([&] { pairs(*open_summaries(folder.path(), {}), "train"); });
  };
  EXPECT_THAT(refused("{\"text\": \"a\"}"), HasSubstr("train.jsonl:1: expected `summary`"));
  EXPECT_THAT(refused("{\"text\": 1, \"summary\": []}"), HasSubstr("`text`, it is of type number"));
  EXPECT_THAT(refused("{\"text\": \"a\", \"summary\": 3}"), HasSubstr("it is of type number"));
  EXPECT_THAT(refused("{\"text\": \"a\", \"summary\": [{\"source\": \"b\"}]}"),
              HasSubstr("expected a string `text`, there is none"));
  EXPECT_THAT(refused("null"), HasSubstr("got JSON of type null"));
  EXPECT_THAT(refused(std::string(100000, '[')), HasSubstr("there is no JSON from byte"));
}

TEST(Summaries, SayWhatWasLookedFor) {
  const TempFolder folder;
  put_file(folder / "corpus/train/a.txt", "A book.");
  EXPECT_THAT(message_of<DataError>([&] { open_summaries(folder / "corpus", {}); }),
              HasSubstr("corpus: holds no summaries; looked for "
                        "alignments/book-level-summary-alignments/*.jsonl"));
  EXPECT_THAT(message_of<DataError>([&] { open_summaries(folder / "nothing", {}); }),
              HasSubstr("nothing: no such corpus"));
  put_file(folder / "books/train.jsonl", "");
  EXPECT_THAT(message_of<DataError>(
                  [&] { open_summaries(folder.path(), {.levels = WantedLevels::kChapter}); }),
              HasSubstr("holds no chapter summaries"));
}

}  // namespace
}  // namespace infini
