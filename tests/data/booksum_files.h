// BookSum in small: the three forms, written by the tests themselves.
#pragma once

#include <string>

#include "tests/data/compressed_files.h"
#include "tests/data/fixtures.h"

namespace infini {

inline std::string book_alignment(const std::string& bid, const std::string& source,
                                  const std::string& title) {
  return "{\"bid\": \"" + bid + "\", \"source\": \"" + source + "\", \"title\": \"" + title +
         "\", \"summary_path\": \"finished_summaries/" + source + "/" + title +
         "/overview.json\", \"book_path\": \"all_chapterized_books/" + bid +
         "-chapters/book_clean.txt\"}\n";
}

inline std::string chapter_alignment(const std::string& bid, const std::string& chapter,
                                     const std::string& source, const std::string& section) {
  return "{\"bid\": \"" + bid + "\", \"is_aggregate\": false, \"source\": \"" + source +
         "\", \"chapter_path\": \"all_chapterized_books/" + bid + "-chapters/" + chapter +
         ".txt\", \"summary_path\": \"finished_summaries/" + source + "/T/" + section +
         ".txt\", \"book_id\": \"T.chapter " + chapter + "\", \"summary_id\": \"chapter " +
         chapter + "\"}\n";
}

inline std::string summary_file(const std::string& text) {
  return "{\"name\": \"Overview\", \"summary\": " + json_string(text) + ", \"analysis\": \"\"}";
}

// Two books for training, one of them summarised twice, three chapters of which one is summarised
// twice, and a book to test on. Everything is there.
inline void put_booksum(const std::filesystem::path& root) {
  const auto put = [&](const std::string& name, const std::string& bytes) {
    put_file(root / name, bytes);
  };
  const std::string books = "alignments/book-level-summary-alignments/book_summaries_aligned_",
                    chapters =
                        "alignments/chapter-level-summary-alignments/chapter_summary_aligned_";
  put(books + "train.jsonl", book_alignment("1", "shmoop", "One") +
                                 book_alignment("2", "shmoop", "Two") +
                                 book_alignment("1", "sparknotes", "One"));
  put(books + "test.jsonl", book_alignment("3", "shmoop", "Three"));
  put(chapters + "train_split.jsonl",
      chapter_alignment("1", "01", "shmoop", "section_0_part_0") +
          chapter_alignment("1", "02", "shmoop", "section_1_part_0") +
          chapter_alignment("1", "01", "bookwolf", "section_0_part_0"));
  put("all_chapterized_books/1-chapters/book_clean.txt", "The first book.\nIt is long.\n");
  put("all_chapterized_books/2-chapters/book_clean.txt", "The second book.\n");
  put("all_chapterized_books/3-chapters/book_clean.txt", "The third book.\n");
  put("all_chapterized_books/1-chapters/01.txt", "The first book.\n");
  put("all_chapterized_books/1-chapters/02.txt", "It is long.\n");
  put("finished_summaries/shmoop/One/overview.json", summary_file("One, says shmoop."));
  put("finished_summaries/sparknotes/One/overview.json", summary_file("One, say sparknotes."));
  put("finished_summaries/shmoop/Two/overview.json", summary_file("Two."));
  put("finished_summaries/shmoop/Three/overview.json", summary_file("Three."));
  put("finished_summaries/shmoop/T/section_0_part_0.txt", summary_file("It begins."));
  put("finished_summaries/shmoop/T/section_1_part_0.txt", summary_file("It ends."));
  put("finished_summaries/bookwolf/T/section_0_part_0.txt", summary_file("A beginning."));
}

}  // namespace infini
