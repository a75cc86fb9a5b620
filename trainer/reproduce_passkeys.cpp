#include "trainer/reproduce_passkeys.h"

#include <spdlog/spdlog.h>

#include "tensor/enum_names.h"
#include "trainer/passkey_scores.h"

namespace infini {
namespace {

using Json = nlohmann::ordered_json;

}  // namespace

std::vector<Json> passkey_cells(const TablePasskeyConfig& table, bool has_memory) {
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

MeasuredCell measure_passkeys(const LoadedModel& loaded, const Json& cell,
                              const Communicator& all) {
  const PasskeyWriter writer(*loaded.tokenizer, loaded.config.data.passkey.digits);
  const auto tokens = cell.at("tokens").get<std::int64_t>();
  const auto position = value_of<PasskeyPosition>(cell.at("position").get<std::string>()).value();
  const std::vector<PasskeyPrompt> prompts =
      evaluation_prompts(writer, loaded.config.seed, tokens, position, cell.at("prompts"));
  const PasskeyReading reading = read_passkeys(*loaded.model, prompts, cell.at("memory"),
                                               loaded.config.evaluate.segments_at_once, all);
  spdlog::info("{}: {} tokens, key at the {}{}: {} of {} exact, {} of {} digits",
               loaded.config.directory, tokens, cell.at("position").get<std::string>(),
               cell.at("memory").get<bool>() ? "" : ", memory off", reading.score.exact,
               reading.score.prompts, reading.score.right_digits, reading.score.digits);
  return {.figures = {{"exact", reading.score.exact},
                      {"digits", reading.score.digits},
                      {"right_digits", reading.score.right_digits}},
          .cost = {{"tokens_per_second", reading.tokens_per_second},
                   {"peak_bytes", reading.peak_bytes}}};
}

}  // namespace infini
