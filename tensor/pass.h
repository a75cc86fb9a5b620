// What a forward pass carries besides its tensors.
#pragma once

#include "tensor/parameters.h"

namespace infini {

struct Pass {
  Tape* tape = nullptr;   // records when present
  bool training = false;  // dropout and its kin act only in training
  RandomKey key{};        // (seed, step) of this pass

  // The value of a parameter, watched when this pass records and the parameter is not frozen.
  Tensor operator()(const Parameter& parameter) const {
    return tape && !parameter.frozen ? tape->watch(parameter.value, parameter.gradient)
                                     : parameter.value;
  }
};

}  // namespace infini
