// Adafactor (Shazeer, Stern, 2018) in the form of optax and meliad. In step t, counted from 1, with
// learning rate lr, a parameter X with gradient G is updated by
//   keep = 1 - t^-decay_exponent
//   V = keep V + (1 - keep) (G^2 + epsilon_squared)          element by element, or factored: with
//     R = keep R + (1 - keep) mean over columns, C = keep C + (1 - keep) mean over rows of the
//     same, V[r, c] = R[r] C[c] / mean(R)
//   U = G / sqrt(V)
//   U = U / max(1, RMS(U) / clip_threshold) * lr * (relative ? max(min_scale, RMS(X)) : 1)
//   M = momentum M + (1 - momentum) U, taken instead of U when momentum > 0; no bias correction
//   X = X - U - lr weight_decay X
// RMS is over the whole parameter. Matrices with both sides at least factored_from are factored.
// Where a process has a part of a parameter, means, RMS and sides are still those of the whole.
#pragma once

#include <span>

#include "optim/optimizer.h"

namespace infini {

class Adafactor final : public Optimizer {
 public:
  Adafactor(const OptimConfig& config, const Parameters& parameters, const Owns& owns,
            const TensorGroup* group);
  static std::vector<StatePart> parts_of(const AdafactorConfig& config, const Shape& parameter,
                                         const Division& division);

 private:
  void update(double rate_factor, const Tensor& gradient_scale) const override;

  AdafactorConfig config_;
  const TensorGroup* group_;
};

// What a device provides: adafactor.cpp for the CPU, adafactor.cu for CUDA.
class AdafactorKernels {
 public:
  struct Update {
    Tensor parameter, gradient;    // as all that follow but value, of one type in all updates
    Tensor row_mean, column_mean;  // [rows], [columns] of a factored matrix, else empty
    Tensor square;                 // as the parameter when not factored, else empty
    Tensor momentum;               // as the parameter, empty without momentum
    Tensor value;  // the parameter in bf16, written with it; empty when there is no such copy
    double learning_rate, weight_decay;
    bool relative;
    Division division;  // of the parameter
  };
  struct Step {
    std::span<const Update> updates;
    Tensor gradient_scale;  // an fp64 scalar; where it is not finite nothing is updated
    double keep;
    const AdafactorConfig& config;
    const TensorGroup* group;  // null: no parameter is a part
  };
  virtual void update(const Step& step) const = 0;

 protected:
  ~AdafactorKernels() = default;
};

const AdafactorKernels& cuda_adafactor();

}  // namespace infini
