// AdamW (Loshchilov, Hutter: Decoupled Weight Decay Regularization, 2019). In step t, counted from
// 1, with learning rate lr, every element x with gradient g is updated by
//   m = beta1 m + (1 - beta1) g          v = beta2 v + (1 - beta2) g^2
//   x -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon) + lr weight_decay x.
#pragma once

#include <span>

#include "optim/optimizer.h"

namespace infini {

class AdamW final : public Optimizer {
 public:
  AdamW(const OptimConfig& config, const Parameters& parameters, const Owns& owns);
  static std::vector<StatePart> parts_of(const Shape& parameter, const Division& division);

 private:
  void update(double rate_factor, const Tensor& gradient_scale) const override;

  AdamWConfig config_;
};

// What a device provides: adamw.cpp for the CPU, adamw.cu for CUDA.
class AdamWKernels {
 public:
  struct Update {
    Tensor parameter, gradient, mean, square;  // of one size; of one type in all updates
    Tensor value;  // the parameter in bf16, written with it; empty when there is no such copy
    double learning_rate, weight_decay;
  };
  struct Step {
    std::span<const Update> updates;
    Tensor gradient_scale;  // an fp64 scalar; where it is not finite nothing is updated
    double beta1, beta2, epsilon;
    double mean_correction, square_correction;  // 1 / (1 - beta^t)
  };
  virtual void update(const Step& step) const = 0;

 protected:
  ~AdamWKernels() = default;
};

const AdamWKernels& cuda_adamw();

}  // namespace infini
