// AdamW (Loshchilov, Hutter: Decoupled Weight Decay Regularization, 2019). In step t, counted from
// 1, with learning rate lr, every element x with gradient g is updated by
//   m = beta1 m + (1 - beta1) g          v = beta2 v + (1 - beta2) g^2
//   x -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon) + lr weight_decay x.
#pragma once

#include "optim/optimizer.h"

namespace infini {

class AdamW final : public Optimizer {
 public:
  AdamW(const OptimConfig& config, Parameters& parameters);

 private:
  void update(const Slot& slot, double learning_rate, double gradient_scale) const override;

  AdamWConfig config_;
};

// What a device provides: adamw.cpp for the CPU, adamw.cu for CUDA. All tensors have one size and
// type.
class AdamWKernels {
 public:
  struct Update {
    Tensor parameter, gradient, mean, square;
    Tensor gradient_scale;  // an fp64 scalar; where it is not finite nothing is updated
    double learning_rate, weight_decay;
    double beta1, beta2, epsilon;
    double mean_correction, square_correction;  // 1 / (1 - beta^t)
  };
  virtual void update(const Update& args) const = 0;

 protected:
  ~AdamWKernels() = default;
};

const AdamWKernels& cuda_adamw();

}  // namespace infini
