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

// Draw number `index` of the stream. Tokens with a logit of -infinity are never drawn; throws where
// all have it or one is infinity or not a number.
std::int32_t sample_token(std::span<const float> logits, const SamplingOptions& options,
                          const RandomKey& key, std::uint64_t index);

// How a text is kept from repeating itself. What it has written is looked at, not what it was
// given.
struct RepetitionOptions {
  double penalty = 1;       // 1: none
  int no_repeat_ngram = 0;  // no run of so many tokens is written twice; 0: any may be

  bool is_on() const { return penalty != 1 || no_repeat_ngram > 0; }
  void validate() const;
};

// Divides the logit of every token in `written` by the penalty where it is positive and multiplies
// it where it is not, once however often the token stands there (Keskar et al. 2019, CTRL, section
// 4.1; a negative logit is multiplied so that a penalty above 1 makes every token less likely).
void penalize_repetition(std::span<float> logits, std::span<const std::int32_t> written,
                         double penalty);

// Gives -infinity to every token that would end a run of n tokens which stands in `written` already
// (Paulus et al. 2018 for n = 3). Where no token would be left, all stay as they are.
void forbid_repeated_ngrams(std::span<float> logits, std::span<const std::int32_t> written, int n);

}  // namespace infini
