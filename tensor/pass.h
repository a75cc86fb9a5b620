// What a forward pass carries besides its tensors.
#pragma once

#include <functional>
#include <memory>

#include "tensor/parameters.h"

namespace infini {

// Told during the backward pass that gradients from this element of their flat buffer on are final.
using GradientsFinal = std::function<void(std::int64_t first)>;

struct Loan;  // see parameter_lender.h

struct Pass {
  Tape* tape = nullptr;                             // records when present
  bool training = false;                            // dropout and its kin act only in training
  RandomKey key{};                                  // (seed, step) of this pass
  const GradientsFinal* gradients_final = nullptr;  // where somebody wants to know
  // What losses of a model's own parts weigh, which train parameters of these parts alone: a part
  // that has one makes it a root of the tape. 0: none is computed.
  double auxiliary_scale = 0;

  std::shared_ptr<const Loan> loan{};  // parameters that were borrowed for this pass

  // The value of a parameter, watched when this pass records and the parameter is not frozen.
  Tensor operator()(const Parameter& parameter) const {
    if (loan && !parameter.full_precision) return borrowed(parameter);
    return tape && !parameter.frozen ? tape->watch(parameter.value, parameter.gradient)
                                     : parameter.value;
  }

 private:
  Tensor borrowed(const Parameter& parameter) const;
};

}  // namespace infini
