// What a model keeps of the text before a segment, in numbers for one text, as Table 1 of the
// Infini-attention paper counts it; Table 2 compares systems by it.
#pragma once

#include "model/config.h"

namespace infini {

// infini:                  K (K + 1) Hk L, a matrix and a normaliser of each key/value head
// transformer_xl:          2 K Hk M L, keys and values of M cached tokens; kept are the D numbers
//                          of each from which they are computed anew
// memorizing_transformer:  the same and 2 K Hk N, keys and values of N more in one block
// compressive_transformer: (C + M) D L, rows of C compressed and of M newest tokens
// rmt:                     2 m D L, m vectors read and m written in each layer; m D go on to the
//                          next segment
// transformer_fam:         (2 K Hk M + D F) L, keys and values of M cached tokens and F vectors
// megalodon:               (2 E D + 2 G + 1) L, E complex averages of each channel, mean and
//                          variance of G groups of channels, and how many tokens they are of
// auto_compressor:         (n + 1) m D L, the summaries of n segments and the segment's own
inline std::int64_t memory_numbers(const ModelConfig& config) {
  const std::int64_t layers = config.layers, width = config.head_width(),
                     keys = config.key_value_heads() * width;
  const std::int64_t cached = 2 * keys * config.cached_tokens() * layers;
  switch (config.architecture) {
    case Architecture::kInfini:
      return config.memory == MemoryRule::kNone ? 0 : keys * (width + 1) * layers;
    case Architecture::kTransformerXl:
      return cached;
    case Architecture::kMemorizingTransformer:
      return cached + 2 * keys * config.searched_tokens();
    case Architecture::kCompressiveTransformer:
      return config.context_tokens() * config.d_model * layers;
    case Architecture::kTransformerFam:
      return cached + config.feedback_tokens() * config.d_model * layers;
    case Architecture::kMegalodon:
      return (2 * std::int64_t{config.ema_size} * config.d_model + 2 * config.timestep_groups() +
              1) *
             layers;
    case Architecture::kRmt:
    case Architecture::kAutoCompressor:
      return (config.read_tokens() + config.written_tokens()) * config.d_model * layers;
  }
  return 0;
}

}  // namespace infini
