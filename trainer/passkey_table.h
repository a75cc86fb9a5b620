// How often a model retrieves the passkey, by row length and by where the key stands, with its
// memory and without.
#pragma once

#include <string>
#include <vector>

#include "trainer/passkey_scores.h"
#include "trainer/run_config.h"

namespace infini {

struct PasskeyCell {
  std::int64_t segments = 0;  // row length
  PasskeyPosition position = PasskeyPosition::kStart;
  bool memory = true;  // as trained, or with every gate closed
  PasskeyScore score;
};

// ConfigError where a length of the table has no room for a prompt; to be called before training.
void check_passkey_table(const Tokenizer& tokenizer, const RunConfig& config);

std::vector<PasskeyCell> passkey_table(InfiniTransformer& model, const Tokenizer& tokenizer,
                                       const RunConfig& config);

// The lengths that the table covers when the configuration names none: those trained on, and twice
// the longest.
std::vector<std::int64_t> passkey_lengths(const RunConfig& config);

// Rows of exact-match percentages, for the terminal.
std::string format_passkey_table(const std::vector<PasskeyCell>& cells, const RunConfig& config);

// The same as a JSON list.
std::string passkey_json(const std::vector<PasskeyCell>& cells);

}  // namespace infini
