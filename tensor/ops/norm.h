// Root-mean-square normalisation over the last axis (Zhang, Sennrich 2019):
//   y[r, c] = x[r, c] * inv_rms[r] * weight[c],   inv_rms[r] = 1 / sqrt(mean_c(x[r, c]^2) + eps)
#pragma once

#include "tensor/tape.h"

namespace infini {

// x [..., C], weight [C] in fp32 (fp64 where x is) -> y [..., C].
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps);

// What a device provides for this family: norm.cpp for the CPU, norm.cu for CUDA. Leading axes are
// folded into rows R.
class NormKernels {
 public:
  struct RmsNorm {
    Tensor x;       // [R, C]
    Tensor weight;  // [C]
    double eps;
    Tensor y;        // [R, C]
    Tensor inv_rms;  // [R] in the accumulator type
  };
  struct RmsNormGrad {
    Tensor x, weight, inv_rms, dy;
    Gradients::Renewal dx;
    GradTarget dweight;
  };
  virtual void rms_norm(const RmsNorm& args) const = 0;
  virtual void rms_norm_grad(const RmsNormGrad& args) const = 0;

 protected:
  ~NormKernels() = default;
};

const NormKernels& cuda_norm();

}  // namespace infini
