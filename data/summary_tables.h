// CSV files of a document and a summary a record, as copies of BookSum have them.
#pragma once

#include "data/summaries.h"

namespace infini {

// A folder with {train,validation,test}.csv, or one .csv file. Columns are found by their names:
// the text is `chapter` or, of books, `book`; the summary is `summary_text` or, without it,
// `summary`, a text or the JSON of a summary file; `source`, `chapter_path` or `bid`, and `book_id`
// or `title` may be there. Null where `path` has no such file. Throws DataError for a header
// without them.
std::unique_ptr<SummaryReader> open_summary_tables(const std::filesystem::path& path,
                                                   const SummaryRules& rules);

}  // namespace infini
