#include "trainer/reproduce_passkeys.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "data/durable_file.h"
#include "model/memory_size.h"
#include "trainer/config_writer.h"
#include "trainer/passkey_scores.h"
#include "trainer/reproduce_results.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kFile = "passkeys.json";

// One cell of the table as it stands in files: {tokens, position, memory, prompts}.
std::vector<Json> cells_of(const TablePasskeyConfig& table, bool has_memory) {
  std::vector<Json> cells;
  for (const std::int64_t tokens : table.lengths)
    for (const bool memory : {true, false})
      for (const auto& [name, position] : enum_names(PasskeyPosition{}))
        if (memory || has_memory)
          cells.push_back({{"tokens", tokens},
                           {"position", name},
                           {"memory", memory},
                           {"prompts", table.prompts}});
  return cells;
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

PasskeyPosition position_of(const std::string& name) {
  for (const auto& [known, position] : enum_names(PasskeyPosition{}))
    if (known == name) return position;
  throw DataError(text(kFile, ": ", name, " is no position"));
}

Json measured(const LoadedModel& loaded, const Json& cell, const Communicator& all) {
  const PasskeyWriter writer(*loaded.tokenizer, loaded.config.data.passkey.digits);
  const auto tokens = cell.at("tokens").get<std::int64_t>();
  std::vector<PasskeyPrompt> prompts;
  for (int i = 0; i < cell.at("prompts").get<int>(); ++i)
    prompts.push_back(writer.evaluation(static_cast<std::uint64_t>(loaded.config.seed), tokens,
                                        position_of(cell.at("position")), i));
  const PasskeyReading reading = read_passkeys(*loaded.model, prompts, cell.at("memory"),
                                               loaded.config.evaluate.segments_at_once, all);
  Json entry = cell;
  entry.update({{"exact", reading.score.exact},
                {"digits", reading.score.digits},
                {"right_digits", reading.score.right_digits},
                {"tokens_per_second", reading.tokens_per_second},
                {"peak_bytes", reading.peak_bytes}});
  spdlog::info("{}: {} tokens, key at the {}{}: {} of {} exact, {} of {} digits",
               loaded.config.directory, tokens, cell.at("position").get<std::string>(),
               cell.at("memory").get<bool>() ? "" : ", memory off", reading.score.exact,
               reading.score.prompts, reading.score.right_digits, reading.score.digits);
  return entry;
}

}  // namespace

bool has_passkeys(const Json& result, const TablePasskeyConfig& table) {
  const Json none = Json::array();
  const Json& list = result.contains("passkeys") ? result.at("passkeys") : none;
  return std::ranges::all_of(cells_of(table, result.at("memory_numbers") > 0),
                             [&](const Json& cell) { return find(list, cell) != nullptr; });
}

bool measure_passkeys(const LoadedModel& loaded, const TablePasskeyConfig& table,
                      const fs::path& directory, const Communicator& all,
                      const std::function<bool()>& go_on) {
  const std::string config = config_yaml(loaded.config);
  const Json there = Json::parse(all.from_first(
      all.is_first() ? cells_there(directory / kFile, config, loaded.step).dump() : ""));
  Json file{{"config", config}, {"step", loaded.step}, {"cells", there}};
  bool is_first = true;
  for (const Json& cell : cells_of(table, memory_numbers(loaded.config.model) > 0)) {
    if (find(file.at("cells"), cell)) continue;
    if (!is_first && !go_on()) return false;
    is_first = false;
    file["cells"].push_back(measured(loaded, cell, all));
    if (all.is_first()) write_file(directory / kFile, file.dump(2) + "\n");
  }
  return true;
}

void add_passkeys(const fs::path& directory, const TablePasskeyConfig& table, Json& result,
                  Json& timings) {
  const Json file = read_json(directory / kFile);
  result["passkeys"] = timings["passkeys"] = Json::array();
  for (const Json& cell : cells_of(table, result.at("memory_numbers") > 0)) {
    const Json* const entry = find(file.at("cells"), cell);
    check<DataError>(entry != nullptr, (directory / kFile).string(), ": lacks ", cell.dump());
    Json scores = cell, costs = cell;
    for (const char* key : {"exact", "digits", "right_digits"}) scores[key] = entry->at(key);
    for (const char* key : {"tokens_per_second", "peak_bytes"}) costs[key] = entry->at(key);
    result["passkeys"].push_back(scores);
    timings["passkeys"].push_back(costs);
  }
}

}  // namespace infini
