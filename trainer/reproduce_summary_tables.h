// What a table of kind summaries shows of one corpus.
#pragma once

#include "trainer/reproduce_figures.h"

namespace infini {

// Markdown: ROUGE in % by input length, the mean over seeds with the bootstrap interval of the
// first, and below what the paper prints; what training, reading and writing cost. For a
// corpus with results.
std::string summary_tables(const Table& table, const CorpusConfig& corpus,
                           const std::vector<CellResults>& cells);

// The geometric mean by input length, a line for each row and a dashed one for its memory forced
// off: summaries-<corpus>.svg. None where nothing is measured.
std::vector<DrawnFigure> summary_figures(const Table& table, const CorpusConfig& corpus,
                                         const std::vector<CellResults>& cells);

}  // namespace infini
