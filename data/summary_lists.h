// JSON lines of a document with a list of its summaries, as copies of BookSum have them.
#pragma once

#include "data/summaries.h"

namespace infini {

// A folder with books/ or chapters/ of {train,validation,test}.jsonl, or one such file, whose
// documents are books. Null where `path` has none of the levels wanted.
std::unique_ptr<SummaryReader> open_summary_lists(const std::filesystem::path& path,
                                                  const SummaryRules& rules);

}  // namespace infini
