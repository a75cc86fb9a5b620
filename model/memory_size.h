// How much a model remembers of what lies before a segment, as the paper counts it (Table 1).
#pragma once

#include "model/config.h"

namespace infini {

// Numbers kept for one sequence over all blocks, whatever its length:
//   infini          K (V + 1) H L, matrix and normaliser of every head; 0 with memory = none
//   transformer_xl  (K + V) H M L of M cached tokens: the keys and values that attention reads. The
//                   model keeps what they are computed from, D M L, and computes them again.
// H are the key/value heads, and V = K.
inline std::int64_t memory_numbers(const ModelConfig& config) {
  const std::int64_t head = config.head_width();
  const std::int64_t heads = std::int64_t{config.layers} * config.key_value_heads();
  const std::int64_t matrices = config.memory == MemoryRule::kNone ? 0 : head * (head + 1) * heads;
  return matrices + 2 * head * heads * config.cached_tokens();
}

}  // namespace infini
