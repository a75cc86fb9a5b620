// What a table of kind passkey shows of one corpus.
#pragma once

#include "trainer/reproduce_figures.h"

namespace infini {

// Markdown: digits right and exact matches by length of the prompt, start/middle/end of it in %
// and the mean over seeds, beside what the paper prints; what training and reading cost. For a
// corpus with results.
std::string passkey_tables(const Table& table, const CorpusConfig& corpus,
                           const std::vector<CellResults>& cells);

// Exact matches of each row by position and length: passkeys-<corpus>-<row>.svg.
std::vector<DrawnFigure> passkey_figures(const Table& table, const CorpusConfig& corpus,
                                         const std::vector<CellResults>& cells);

}  // namespace infini
