// Activations of the feed-forward part.
//   relu(x)   = max(x, 0)
//   gelu(x)   = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))    Hendrycks, Gimpel 2016
//   swiglu(x) = silu(x[:, :F]) * x[:, F:]                        Shazeer 2020
//   geglu(x)  = gelu(x[:, :F]) * x[:, F:]                        the same
// with silu(a) = a sigmoid(a); the last two take [R, 2 F] to [R, F].
#pragma once

#include "tensor/tape.h"

namespace infini {

Tensor relu(const Tensor& x);
Tensor gelu(const Tensor& x);
Tensor swiglu(const Tensor& x);
Tensor geglu(const Tensor& x);

// What a device provides for this family: activation.cpp for the CPU, activation.cu for CUDA.
class ActivationKernels {
 public:
  enum class Kind { kRelu, kGelu, kSilu };

  // y = f(x) and, where slope is given, f'(x): the backward pass then is one multiplication.
  virtual void elementwise(Kind kind, const Tensor& x, const Tensor& y,
                           const Tensor& slope) const = 0;  // slope may be x itself
  virtual void elementwise_grad(const Tensor& slope, const Tensor& dy,
                                const GradTarget& dx) const = 0;  // dx may be dy itself
  // y = f(x[:, :F]) * x[:, F:].
  virtual void gated(Kind kind, const Tensor& x, const Tensor& y) const = 0;
  virtual void gated_grad(Kind kind, const Tensor& x, const Tensor& dy,
                          const GradTarget& dx) const = 0;

 protected:
  ~ActivationKernels() = default;
};

const ActivationKernels& cpu_activation();
const ActivationKernels& cuda_activation();

}  // namespace infini
