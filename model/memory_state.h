// What a model remembers of everything before the current segment.
#pragma once

#include <vector>

#include "model/config.h"
#include "tensor/tensor.h"

namespace infini {

// Of one layer, or of the model where the memory belongs to it. An architecture has the parts it
// names and leaves the others empty, and its own are empty when nothing was written.
struct MemoryState {
  // infini, in the accumulator type
  Tensor matrix{};      // M [B, Hk, K, K]
  Tensor normalizer{};  // z [B, Hk, K]

  // transformer_xl, memorizing_transformer, compressive_transformer: the newest tokens, oldest
  // first
  Tensor cached{};  // [B, M, D], what the layer's attention took

  // rmt and auto_compressor, of the model
  Tensor vectors{};  // [B, M, D], what stands before the tokens of the next segment, oldest first

  // transformer_fam: the newest tokens, oldest first, and what the layer made of all before
  Tensor window{};            // [B, M, 2 Hk K], keys without positions, then values
  Tensor feedback{};          // [B, F, D]
  Tensor feedback_present{};  // [B, F] u8

  // megalodon, in the accumulator type: see complex_average.h and timestep_norm.h
  Tensor averages{};      // [B, D, E, 2]
  Tensor norm_moments{};  // [B, G, 2]
  Tensor norm_tokens{};   // [B, 1]

  // all but infini and megalodon
  Tensor present{};  // [B, M] u8, 1: a token or vector stands there

  // memorizing_transformer, in the block with a long memory: the newest tokens, oldest first
  Tensor pairs{};          // [B, N, 2 Hk K], keys of length 1, then values
  Tensor pairs_present{};  // [B, N] u8

  // compressive_transformer: rows of older tokens, oldest first
  Tensor compressed{};          // [B, C, D]
  Tensor compressed_present{};  // [B, C] u8
};

// What holds for the parts one by one is said over this list: a new architecture adds its own here.
struct MemoryPart {
  const char* name;  // in checkpoints
  Tensor MemoryState::*tensor;
  bool has_gradient;  // whether gradients go back through it
};
constexpr MemoryPart kMemoryParts[] = {
    {"matrix", &MemoryState::matrix, true},
    {"normalizer", &MemoryState::normalizer, true},
    {"cached", &MemoryState::cached, false},
    {"vectors", &MemoryState::vectors, true},
    {"window", &MemoryState::window, true},
    {"feedback", &MemoryState::feedback, true},
    {"feedback_present", &MemoryState::feedback_present, false},
    {"averages", &MemoryState::averages, true},
    {"norm_moments", &MemoryState::norm_moments, true},
    {"norm_tokens", &MemoryState::norm_tokens, false},
    {"present", &MemoryState::present, false},
    {"pairs", &MemoryState::pairs, false},
    {"pairs_present", &MemoryState::pairs_present, false},
    {"compressed", &MemoryState::compressed, false},
    {"compressed_present", &MemoryState::compressed_present, false}};

// One per layer, or a single one where the memory belongs to the model. A model that carries
// nothing has states that stay empty.
using Memories = std::vector<MemoryState>;

// f(part, tensor) of every part of every state that is not empty; the others stay empty.
template <class Function>
Memories each_part(const Memories& memories, const Function& f) {
  Memories result(memories.size());
  for (std::size_t layer = 0; layer < memories.size(); ++layer)
    for (const MemoryPart& part : kMemoryParts)
      if (const Tensor& tensor = memories[layer].*part.tensor)
        result[layer].*part.tensor = f(part, tensor);
  return result;
}

// Memories in which nothing is written.
inline Memories empty_memories(const ModelConfig& config) {
  return Memories(config.has_memory_tokens() ? 1 : config.layers);
}

// The same as tensors of zeros, for B rows of a model that computes in this type.
inline Memories zero_memories(const ModelConfig& config, std::int64_t batch, DType compute,
                              Device device) {
  Memories memories = empty_memories(config);
  const std::int64_t heads = config.key_value_heads(), width = config.head_width();
  const std::int64_t cached = config.cached_tokens();
  for (std::size_t layer = 0; layer < memories.size(); ++layer) {
    MemoryState& state = memories[layer];
    if (config.memory != MemoryRule::kNone)
      state = {
          .matrix = Tensor::zeros({batch, heads, width, width}, accumulator_of(compute), device),
          .normalizer = Tensor::zeros({batch, heads, width}, accumulator_of(compute), device)};
    if (cached > 0) state.present = Tensor::zeros({batch, cached}, DType::kUInt8, device);
    if (const std::int64_t fed_back = config.feedback_tokens()) {
      state.window = Tensor::zeros({batch, cached, 2 * heads * width}, compute, device);
      state.feedback = Tensor::zeros({batch, fed_back, config.d_model}, compute, device);
      state.feedback_present = Tensor::zeros({batch, fed_back}, DType::kUInt8, device);
    } else if (cached > 0) {
      state.cached = Tensor::zeros({batch, cached, config.d_model}, compute, device);
    }
    if (const int groups = config.timestep_groups()) {
      const DType full = accumulator_of(compute);
      state.averages = Tensor::zeros({batch, config.d_model, config.ema_size, 2}, full, device);
      state.norm_moments = Tensor::zeros({batch, groups, 2}, full, device);
      state.norm_tokens = Tensor::zeros({batch, 1}, full, device);
    }
    if (const std::int64_t rows = config.compressed_rows()) {
      state.compressed = Tensor::zeros({batch, rows, config.d_model}, compute, device);
      state.compressed_present = Tensor::zeros({batch, rows}, DType::kUInt8, device);
    }
    if (config.retrieves(static_cast<int>(layer))) {
      const std::int64_t places = config.searched_tokens();
      state.pairs = Tensor::zeros({batch, places, 2 * heads * width}, compute, device);
      state.pairs_present = Tensor::zeros({batch, places}, DType::kUInt8, device);
    }
    if (config.has_memory_tokens()) {
      const std::int64_t read = config.read_tokens();
      state.vectors = Tensor::zeros({batch, read, config.d_model}, compute, device);
      state.present = Tensor::zeros({batch, read}, DType::kUInt8, device);
    }
  }
  return memories;
}

}  // namespace infini
