// The arithmetic that a model needs, for rates.
#pragma once

#include "model/config.h"

namespace infini {

// Floating-point operations to train on one token, forward and backward, nothing recomputed: 2 for
// each multiply-add of every matrix parameter, causal attention inside segments at half, the
// memory's reads and writes; times 3 for the two products of the backward pass. Positions of memory
// tokens are shared among the tokens of their segment.
inline double training_flops_per_token(const ModelConfig& config) {
  const double width = config.d_model, head = config.head_width();
  const double queries = config.heads * head, keys = config.key_value_heads() * head;
  const double inner = config.inner_width(),
               matrices = config.activation == Activation::kSwiglu ? 3 : 2;
  double block =
      2 * (width * (queries + 2 * keys) + queries * width) + 2 * matrices * width * inner;
  const auto positions = static_cast<double>(config.positions(config.segment_tokens));
  block += 2 * positions * queries;
  // Of a cache, all is read; its keys and values are computed anew, once for each token of a
  // segment or fewer, and those of distances are few.
  const auto cached = static_cast<double>(config.cached_tokens());
  if (cached > 0)
    block += 4 * cached * queries + 2 * width * 2 * keys +
             2 * (cached + static_cast<double>(config.segment_tokens) / 2) * queries;
  // Read for every query head, written for every key/value head; the delta rule reads the memory by
  // keys as well.
  if (config.memory != MemoryRule::kNone) block += 2 * head * queries + 2 * head * keys;
  if (config.memory == MemoryRule::kDelta) block += 2 * head * keys;
  block *= positions / static_cast<double>(config.segment_tokens);
  return 3 * (config.layers * block + 2 * width * config.vocabulary);
}

}  // namespace infini
