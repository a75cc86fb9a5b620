// Cells of Table 3: how often a trained model names a number hidden in prompts of a length.
#pragma once

#include "distributed/communicator.h"
#include "trainer/loaded_model.h"
#include "trainer/reproduce_results.h"

namespace infini {

// {tokens, position, memory, prompts} for each length and position, the memory as trained and,
// where there is one, forced off.
std::vector<nlohmann::ordered_json> passkey_cells(const TablePasskeyConfig& table, bool has_memory);

// Figures: exact, digits, right_digits. Cost: tokens_per_second, peak_bytes. Ranks divide the
// prompts.
MeasuredCell measure_passkeys(const LoadedModel& loaded, const nlohmann::ordered_json& cell,
                              const Communicator& all);

}  // namespace infini
