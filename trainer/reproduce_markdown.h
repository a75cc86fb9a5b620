// A table of the paper as table.md: what was measured, and beside it what the paper prints.
#pragma once

#include "trainer/reproduce_figures.h"

namespace infini {

std::string table_markdown(const Table& table, const std::vector<CellResults>& cells,
                           const std::vector<DrawnFigure>& figures);

// "1.585M", "50.33M": millions with four digits and at least two decimals.
std::string millions_text(std::int64_t count);

}  // namespace infini
