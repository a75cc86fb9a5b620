// Texts of random tokens that a model has been given.
#pragma once

#include "tests/model/tiny_model.h"
#include "trainer/sequence.h"

namespace infini {

using Ids = std::vector<std::int32_t>;

inline Ids some_ids(std::int64_t count, std::uint32_t site = 40) {
  return random_ids({count}, site).to_vector<std::int32_t>();
}

inline Sequence sequence_of(const InfiniTransformer& model, const Ids& prompt) {
  Sequence sequence(model);
  sequence.give(prompt);
  return sequence;
}

}  // namespace infini
