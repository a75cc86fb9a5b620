// The original tree of salesforce/booksum: alignment files and the texts that they name.
#pragma once

#include "data/summaries.h"

namespace infini {

// Null where `path` has no alignment files of the levels wanted. A file that an alignment names may
// also lie there compressed, and a summary under the other of .json and .txt.
std::unique_ptr<SummaryReader> open_summary_tree(const std::filesystem::path& path,
                                                 const SummaryRules& rules);

}  // namespace infini
