// The figures of a table of the paper, drawn from its runs.
#pragma once

#include "trainer/reproduce_results.h"

namespace infini {

struct DrawnFigure {
  std::string file, title, svg;
};

// Those that the table wants and its runs allow:
//   segments-<corpus>.svg       perplexity by index of the segment, the mean over seeds, a line for
//                               each row and a dashed one for its memory forced off
//   gates-<corpus>-<row>.svg    sigmoid(gate) of the row's first seed, where it has gates
//   passkeys-<corpus>-<row>.svg exact matches by position and length
std::vector<DrawnFigure> draw_figures(const Table& table, const std::vector<CellResults>& cells);

}  // namespace infini
