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
#pragma once

#include "optim/optimizer.h"

namespace infini {

class Adafactor final : public Optimizer {
 public:
  Adafactor(const OptimConfig& config, Parameters& parameters);

 private:
  void update(const Slot& slot, double learning_rate, double gradient_scale) const override;

  AdafactorConfig config_;
};

// What a device provides: adafactor.cpp for the CPU, adafactor.cu for CUDA. All tensors have one
// type.
class AdafactorKernels {
 public:
  struct Update {
    Tensor parameter, gradient;
    Tensor row_mean, column_mean;  // [rows], [columns] of a factored matrix, else empty
    Tensor square;                 // as the parameter when not factored, else empty
    Tensor momentum;               // as the parameter, empty without momentum
    Tensor gradient_scale;         // an fp64 scalar; where it is not finite nothing is updated
    double learning_rate, weight_decay;
    double keep;
    bool relative;
    const AdafactorConfig& config;
  };
  virtual void update(const Update& args) const = 0;

 protected:
  ~AdafactorKernels() = default;
};

const AdafactorKernels& cuda_adafactor();

}  // namespace infini
