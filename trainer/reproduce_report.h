// A table of the paper as files: results.json, table.md and figures of the runs there are.
#pragma once

#include "trainer/reproduce_results.h"

namespace infini {

// Writes results.json, which depends on configurations and trained models alone,
// timings.json, table.md and SVG figures into `output`, replacing those of an earlier call.
// `cells` in the order of rows and, in a row, of corpora; none for a table of kind memory.
void write_report(const Table& table, const std::vector<CellResults>& cells,
                  const std::filesystem::path& output);

}  // namespace infini
