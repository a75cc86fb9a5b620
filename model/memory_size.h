// How much a model remembers of a row, to compare architectures by.
#pragma once

#include "model/config.h"

namespace infini {

// Numbers as Table 1 of the Infini-attention paper counts them: of a token that attention can read
// its keys and values, of a matrix memory the matrix and the normaliser, of a Compressive
// Transformer the d_model numbers of every row. Transformer-XL's cache holds d_model numbers for
// each token here too, from which keys and values are computed anew.
inline std::int64_t memory_numbers(const ModelConfig& config) {
  const std::int64_t width = config.head_width(), heads = config.key_value_heads();
  const std::int64_t pair = 2 * width * heads;
  if (config.architecture == Architecture::kCompressiveTransformer)
    return config.context_tokens() * config.d_model * config.layers;
  std::int64_t numbers = 0;
  for (int layer = 0; layer < config.layers; ++layer) {
    if (config.memory != MemoryRule::kNone) numbers += width * (width + 1) * heads;
    numbers += config.cached_tokens() * pair;
    if (config.retrieves(layer)) numbers += config.searched_tokens() * pair;
  }
  return numbers;
}

}  // namespace infini
