// What a table's runs came to, and what is counted and averaged over them.
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

// One cell of a table that is measured cell by cell.
struct MeasuredCell {
  nlohmann::ordered_json figures;  // which follow from the checkpoint
  nlohmann::ordered_json cost;     // which differ from run to run
};

// Of a row on a corpus; null where no run of it is measured.
const CellResults* find_results(const std::vector<CellResults>& cells, const std::string& row,
                                const std::string& corpus);

// "32K", "1M", "600": tokens as the titles of tables have them.
std::string length_text(std::int64_t tokens);
// How far a document is read: "whole" for 0.
std::string input_text(std::int64_t document_tokens);

// A file that reproduce wrote. Throws DataError, naming it, where it is no JSON.
nlohmann::ordered_json read_json(const std::filesystem::path& file);
// An object as text whose last key, xxh3, guards the others, and such a file read back. DataError
// where it was changed.
std::string sealed_text(nlohmann::ordered_json object);
nlohmann::ordered_json read_sealed(const std::filesystem::path& file);

// Over runs that differ in their seed.
struct Spread {
  int count = 0;
  double mean = 0, deviation = 0;  // sample standard deviation; 0 for fewer than two
};
Spread spread_of(const std::vector<double>& values);

// Numbers at this place of the results of all runs; runs without it are left out.
std::vector<double> values_of(const CellResults& cell,
                              const nlohmann::ordered_json::json_pointer& figure);

// Memory of a row of the table: numbers kept for one sequence, and how many times more the row that
// keeps most has; 0 for a row that keeps nothing.
struct RowMemory {
  std::int64_t numbers = 0;
  double compression = 0;
};
std::vector<RowMemory> row_memories(const Table& table);

}  // namespace infini
