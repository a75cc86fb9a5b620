// Table 3: how often a trained model names a number hidden in prompts of each length and place.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "trainer/loaded_model.h"
#include "trainer/reproduce_config.h"

namespace infini {

// Whether the list `passkeys` of a run's result has every cell that the table asks for.
bool has_passkeys(const nlohmann::ordered_json& result, const TablePasskeyConfig& table);

// Measures the cells that <directory>/passkeys.json lacks of this checkpoint, one after the other,
// and adds each to it. The memory is forced off as well where the model has one. Between two cells
// it asks whether to `go_on`, and returns false where not. All ranks call it and divide the
// prompts.
bool measure_passkeys(const LoadedModel& loaded, const TablePasskeyConfig& table,
                      const std::filesystem::path& directory, const Communicator& all,
                      const std::function<bool()>& go_on);

// Adds what measure_passkeys() found: result["passkeys"], a list of {tokens, position, memory,
// prompts, exact, digits, right_digits}, and timings["passkeys"] with {tokens_per_second,
// peak_bytes} in place of the last three.
void add_passkeys(const std::filesystem::path& directory, const TablePasskeyConfig& table,
                  nlohmann::ordered_json& result, nlohmann::ordered_json& timings);

}  // namespace infini
