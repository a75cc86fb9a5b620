// How well a model answers passkey prompts of one length. Prompts are read a stretch at a time with
// the memory carried, so what the device holds does not grow with them.
#pragma once

#include <cstdint>
#include <vector>

#include "data/passkey.h"
#include "distributed/communicator.h"
#include "model/transformer.h"

namespace infini {

struct PasskeyScore {
  int prompts = 0;
  int exact = 0;                              // prompts with every token of the answer right
  std::int64_t digits = 0, right_digits = 0;  // tokens of answers
};

// Greedy decoding of the answers. A prompt counts as exact where the most likely token is right at
// every place of its answer, which is what one forward pass over prompt and answer shows. Prompts
// of one length, at most some ten at a time together, `segments_at_once` segments of each.
PasskeyScore score_passkeys(const InfiniTransformer& model,
                            const std::vector<PasskeyPrompt>& prompts,
                            std::int64_t segments_at_once);

// The evaluation prompts of one length and position, from the first on.
std::vector<PasskeyPrompt> evaluation_prompts(const PasskeyWriter& writer, std::int64_t seed,
                                              std::int64_t tokens, PasskeyPosition position,
                                              int count);

// score_passkeys() with what it cost: tokens of all prompts by seconds, and the most bytes of
// device memory this rank held.
struct PasskeyReading {
  PasskeyScore score;
  double tokens_per_second = 0;
  std::int64_t peak_bytes = 0;
};
// Ranks, each with the whole model, divide the prompts. Leaves the model with its memory as given:
// on, as trained, or off.
PasskeyReading read_passkeys(InfiniTransformer& model, const std::vector<PasskeyPrompt>& prompts,
                             bool memory, std::int64_t segments_at_once,
                             const Communicator& ranks = {});

}  // namespace infini
