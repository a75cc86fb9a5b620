// What an Infini-Transformer remembers of everything before the current segment.
#pragma once

#include <vector>

#include "model/config.h"
#include "tensor/tensor.h"

namespace infini {

// Of one layer; both empty when nothing was written.
struct MemoryState {
  Tensor matrix;      // M [B, Hk, K, K]
  Tensor normalizer;  // z [B, Hk, K]
};

// One per layer. A model without memory has states that stay empty.
using Memories = std::vector<MemoryState>;

// Memories in which nothing is written.
inline Memories empty_memories(const ModelConfig& config) { return Memories(config.layers); }

// The same as tensors of zeros, for B rows.
inline Memories zero_memories(const ModelConfig& config, std::int64_t batch, DType dtype,
                              Device device) {
  Memories memories(config.layers);
  if (config.memory == MemoryRule::kNone) return memories;
  const std::int64_t heads = config.key_value_heads(), width = config.head_width();
  for (MemoryState& state : memories)
    state = {.matrix = Tensor::zeros({batch, heads, width, width}, dtype, device),
             .normalizer = Tensor::zeros({batch, heads, width}, dtype, device)};
  return memories;
}

}  // namespace infini
