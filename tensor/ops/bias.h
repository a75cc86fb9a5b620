// The bias of a projection:  y[r, c] = x[r, c] + bias[c]
#pragma once

#include "tensor/tape.h"

namespace infini {

// x [..., C], bias [C] in fp32 (fp64 where x is) -> y [..., C].
Tensor add_bias(const Tensor& x, const Tensor& bias);

// What a device provides for this family: bias.cpp for the CPU, bias.cu for CUDA. Leading axes are
// folded into rows R.
class BiasKernels {
 public:
  virtual void add_bias(const Tensor& x, const Tensor& bias, const Tensor& y) const = 0;
  // dbias = sum_r dy.
  virtual void add_bias_grad(const Tensor& dy, const GradTarget& dbias) const = 0;

 protected:
  ~BiasKernels() = default;
};

const BiasKernels& cuda_bias();

}  // namespace infini
