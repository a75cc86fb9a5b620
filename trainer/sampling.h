// Choosing the next token.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/random.h"

namespace infini {

struct SamplingOptions {
  double temperature = 1;  // 0: always the most likely token
  int top_k = 0;           // only the k most likely; 0: all
  double top_p =
      1;  // only the most likely ones that together reach this probability (Holtzman et al. 2020)
};

// Draw number `index` of the stream.
std::int32_t sample_token(std::span<const float> logits, const SamplingOptions& options,
                          const RandomKey& key, std::uint64_t index);

}  // namespace infini
