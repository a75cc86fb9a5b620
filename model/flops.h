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
  const double inner = config.inner_width(), matrices = config.has_gated_activation() ? 3 : 2;
  const bool over_time = config.normalises_over_time();
  const double projections = over_time ? width * 4 * queries + width * width
                                       : width * (queries + 2 * keys) + queries * width;
  const double products = 2 * projections + 2 * matrices * width * inner;
  double block = products;
  const auto positions = static_cast<double>(config.positions(config.segment_tokens));
  block += 2 * positions * queries;
  // Of a cache, all is read; its keys and values are computed anew, once for each token of a
  // segment or fewer, or for each segment all where they are compressed; those of distances are
  // few.
  const auto cached = static_cast<double>(config.context_tokens());
  if (cached > 0 && config.has_relative_positions())
    block += 4 * cached * queries +
             2 * width * 2 * keys *
                 (config.compressed_rows() > 0 ? cached / static_cast<double>(config.segment_tokens)
                                               : 1) +
             2 * (cached + static_cast<double>(config.segment_tokens) / 2) * queries;
  // Feedback vectors run through the block once for each segment, read it and themselves, and are
  // read with the window, whose keys and values are at hand.
  if (const auto vectors = static_cast<double>(config.feedback_tokens()); vectors > 0) {
    const double share = vectors / static_cast<double>(config.segment_tokens);
    block +=
        share * products + 4 * vectors * (1 + share) * queries + 4 * (cached + vectors) * queries;
  }
  // A complex product, what comes in, and the real part of another one.
  if (over_time) block += 14 * width * config.ema_size;
  // Read for every query head, written for every key/value head; the delta rule reads the memory by
  // keys as well.
  if (config.memory != MemoryRule::kNone) block += 2 * head * queries + 2 * head * keys;
  if (config.memory == MemoryRule::kDelta) block += 2 * head * keys;
  // The tokens that leave are as many as come: a convolution of each and, of the reconstruction,
  // attention over them without a backward pass and over the rows they become with one.
  block *= positions / static_cast<double>(config.segment_tokens);
  double total = 3 * (config.layers * block + 2 * width * config.vocabulary);
  if (config.architecture == Architecture::kCompressiveTransformer &&
      config.compression == Compression::kConvolution) {
    const double tokens = static_cast<double>(config.segment_tokens),
                 rows = tokens / config.compression_rate;
    total += config.layers * (3 * 2 * width * width + 4 * (tokens + 3 * rows) * queries +
                              2 * width * 2 * keys * (1 + 3.0 / config.compression_rate));
  }
  // A search has no backward pass; what it finds is few.
  for (int layer = 0; layer < config.layers; ++layer)
    if (config.retrieves(layer))
      total += 2 * static_cast<double>(config.searched_tokens()) * queries;
  return total;
}

}  // namespace infini
