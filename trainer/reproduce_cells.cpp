#include "trainer/reproduce_cells.h"

#include <algorithm>

#include "data/durable_file.h"
#include "model/memory_size.h"
#include "trainer/config_writer.h"
#include "trainer/reproduce_passkeys.h"
#include "trainer/reproduce_results.h"
#include "trainer/reproduce_summaries.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

fs::path file_of(const fs::path& directory, TableKind kind) {
  return directory / (cells_key(kind) + ".json");
}

std::vector<Json> wanted_cells(const TableConfig& table, bool has_memory) {
  switch (table.kind) {
    case TableKind::kPasskey:
      return passkey_cells(table.passkey, has_memory);
    case TableKind::kSummaries:
      return summary_cells(table.summaries, has_memory);
    default:
      return {};
  }
}

// The entry of `list` for this cell; null where there is none.
const Json* find(const Json& list, const Json& cell) {
  const auto found = std::ranges::find_if(list, [&](const Json& entry) {
    return std::ranges::all_of(cell.items(), [&](const auto& item) {
      return entry.contains(item.key()) && entry.at(item.key()) == item.value();
    });
  });
  return found == list.end() ? nullptr : &*found;
}

// What a file holds of the same checkpoint, and else none.
Json cells_there(const fs::path& file, const std::string& config, std::int64_t step) {
  if (!fs::exists(file)) return Json::array();
  const Json there = read_json(file);
  return there.at("config") == config && there.at("step") == step ? there.at("cells")
                                                                  : Json::array();
}

}  // namespace

std::string cells_key(TableKind kind) {
  if (kind == TableKind::kPasskey) return "passkeys";
  return kind == TableKind::kSummaries ? "summaries" : "";
}

bool has_cells(const Json& result, const TableConfig& table) {
  const std::string key = cells_key(table.kind);
  const Json list = key.empty() || !result.contains(key) ? Json::array() : result.at(key);
  return std::ranges::all_of(wanted_cells(table, result.at("memory_numbers") > 0),
                             [&](const Json& cell) { return find(list, cell) != nullptr; });
}

bool measure_cells(const LoadedModel& loaded, const TableConfig& table, const fs::path& examples,
                   const fs::path& directory, const Communicator& all,
                   const std::function<bool()>& go_on) {
  const fs::path place = file_of(directory, table.kind);
  const std::string config = config_yaml(loaded.config);
  const Json there = Json::parse(
      all.from_first(all.is_first() ? cells_there(place, config, loaded.step).dump() : ""));
  Json file{{"config", config}, {"step", loaded.step}, {"cells", there}};
  bool is_first = true;
  for (Json& cell : wanted_cells(table, memory_numbers(loaded.config.model) > 0)) {
    if (find(file.at("cells"), cell)) continue;
    if (!is_first && !go_on()) return false;
    is_first = false;
    const MeasuredCell measured =
        table.kind == TableKind::kPasskey
            ? measure_passkeys(loaded, cell, all)
            : measure_written_summaries(loaded, cell, examples, directory, all);
    cell["figures"] = measured.figures;
    cell["cost"] = measured.cost;
    file["cells"].push_back(cell);
    if (all.is_first()) write_file(place, file.dump(2) + "\n");
  }
  return true;
}

void add_cells(const fs::path& directory, const TableConfig& table, Json& result, Json& timings) {
  const fs::path place = file_of(directory, table.kind);
  const std::string key = cells_key(table.kind);
  const Json file = read_json(place);
  result[key] = timings[key] = Json::array();
  for (const Json& cell : wanted_cells(table, result.at("memory_numbers") > 0)) {
    const Json* const entry = find(file.at("cells"), cell);
    check<DataError>(entry != nullptr, place.string(), ": lacks ", cell.dump());
    Json figures = cell, cost = cell;
    figures.update(entry->at("figures"));
    cost.update(entry->at("cost"));
    result[key].push_back(figures);
    timings[key].push_back(cost);
  }
}

}  // namespace infini
