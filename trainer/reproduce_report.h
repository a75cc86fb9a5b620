// What a table of the paper comes to: results.json, table.md and figures of the runs there are.
#pragma once

#include <nlohmann/json.hpp>

#include "trainer/reproduce_config.h"

namespace infini {

// The measured runs of one row on one corpus.
struct CellResults {
  struct Run {
    std::int64_t seed = 0;
    std::string directory;           // below the table's
    nlohmann::ordered_json result;   // result.json
    nlohmann::ordered_json timings;  // timings.json
  };
  std::string row, corpus;
  std::vector<Run> runs;
};

// Over runs that differ in their seed.
struct Spread {
  int count = 0;
  double mean = 0, deviation = 0;  // sample standard deviation; 0 for fewer than two
};
Spread spread_of(const std::vector<double>& values);

// Memory of a row of the table: numbers kept for one sequence, and how many times more the row that
// keeps most has; 0 for a row that keeps nothing.
struct RowMemory {
  std::int64_t numbers = 0;
  double compression = 0;
};
std::vector<RowMemory> row_memories(const Table& table);

// Writes results.json, which depends on configurations and measured perplexities alone,
// timings.json, table.md and SVG figures into `output`, replacing those of an earlier call.
// `cells` in the order of rows and, in a row, of corpora; none for a table of kind memory.
void write_report(const Table& table, const std::vector<CellResults>& cells,
                  const std::filesystem::path& output);

}  // namespace infini
