#include "trainer/reproduce_results.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "data/durable_file.h"
#include "model/memory_size.h"

namespace infini {

const CellResults* find_results(const std::vector<CellResults>& cells, const std::string& row,
                                const std::string& corpus) {
  for (const CellResults& cell : cells)
    if (cell.row == row && cell.corpus == corpus && !cell.runs.empty()) return &cell;
  return nullptr;
}

std::string length_text(std::int64_t tokens) {
  if (tokens % (1 << 20) == 0) return text(tokens >> 20, "M");
  return tokens % 1024 == 0 ? text(tokens >> 10, "K") : text(tokens);
}

std::string input_text(std::int64_t document_tokens) {
  return document_tokens == 0 ? "whole" : length_text(document_tokens);
}

namespace {

constexpr const char* kSeal = "xxh3";

std::string seal_of(const nlohmann::ordered_json& object) {
  const std::string body = object.dump();
  return hash_digits(XXH3_64bits(body.data(), body.size()));
}

}  // namespace

std::string sealed_text(nlohmann::ordered_json object) {
  object[kSeal] = seal_of(object);
  return object.dump(2) + "\n";
}

nlohmann::ordered_json read_sealed(const std::filesystem::path& file) {
  nlohmann::ordered_json object = read_json(file);
  const auto is_whole = [&] {
    if (!object.is_object() || !object.contains(kSeal)) return false;
    const nlohmann::ordered_json seal = object[kSeal];
    object.erase(kSeal);
    return seal == seal_of(object);
  };
  check<DataError>(is_whole(), file.string(),
                   ": was changed since it was written; remove it, and "
                   "it is measured again");
  return object;
}

nlohmann::ordered_json read_json(const std::filesystem::path& file) {
  try {
    return nlohmann::ordered_json::parse(read_file(file));
  } catch (const nlohmann::ordered_json::exception& error) {
    throw DataError(text(file.string(), ": ", error.what()));
  }
}

Spread spread_of(const std::vector<double>& values) {
  const auto count = static_cast<double>(values.size());
  if (values.empty()) return {};
  Spread spread{.count = static_cast<int>(values.size()),
                .mean = std::accumulate(values.begin(), values.end(), 0.0) / count};
  double squares = 0;
  for (const double value : values) squares += (value - spread.mean) * (value - spread.mean);
  if (values.size() > 1) spread.deviation = std::sqrt(squares / (count - 1));
  return spread;
}

std::vector<double> values_of(const CellResults& cell,
                              const nlohmann::ordered_json::json_pointer& figure) {
  std::vector<double> values;
  for (const CellResults::Run& run : cell.runs)
    if (run.result.contains(figure) && run.result.at(figure).is_number())
      values.push_back(run.result.at(figure));
  return values;
}

std::vector<RowMemory> row_memories(const Table& table) {
  std::vector<RowMemory> memories;
  for (const TableRowConfig& row : table.config.rows)
    memories.push_back({.numbers = memory_numbers(row_model(table, row))});
  const std::int64_t largest = std::ranges::max(memories, {}, &RowMemory::numbers).numbers;
  for (RowMemory& memory : memories)
    if (memory.numbers > 0)
      memory.compression = static_cast<double>(largest) / static_cast<double>(memory.numbers);
  return memories;
}

}  // namespace infini
