// The JSON of BookSum and its copies. Each function throws DataError, which says what was expected
// and what came, but no file.
#pragma once

#include <string>
#include <string_view>

#include "data/summaries.h"

namespace infini {

// A line of an alignment file. Paths are relative to the tree and stay inside it.
struct Alignment {
  std::string document;  // `book_path` or `chapter_path`
  std::string summary;   // `summary_path`
  std::string source;
  std::string title;  // of a book, `title`; of a chapter, `book_id`
};
Alignment parse_alignment(std::string_view line, SummaryLevel level);

// A file of finished_summaries: an object whose `summary` is a string or a list of them, which
// spaces join.
std::string parse_summary(std::string_view bytes);

// A line of lists: `text` and `summary`, which is a text, an object with `text` and maybe `source`,
// or a list of these. The document is called what `chapter_id`, `book_id` or `bid` says.
SummarizedDocument parse_summarized(std::string_view line, SummaryLevel level);

}  // namespace infini
