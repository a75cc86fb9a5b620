// Clipping by the norm of all gradients together, and the decision whether a step can be taken at
// all, without waiting for the device.
#pragma once

#include <span>

#include "tensor/parameters.h"

namespace infini {

// Both fp64 scalars on the device of the parameters.
struct GradientScale {
  Tensor norm;   // the Euclidean norm over all parameters, summed in fp64 in a fixed order
  Tensor scale;  // min(1, clip_norm / norm), or 1 when clip_norm is 0; NaN where the norm, or any
                 // of `conditions`, is not finite. Hand it to Optimizer::step.
};
// conditions: scalars of any floating-point type on the same device, such as the loss.
GradientScale gradient_scale(const Parameters& parameters, std::span<const Tensor> conditions,
                             double clip_norm);
// The same from the sum of the squares of all gradients, an fp64 scalar.
GradientScale gradient_scale(const Tensor& squares, std::span<const Tensor> conditions,
                             double clip_norm);

// What a device provides: clip.cpp for the CPU, clip.cu for CUDA.
class ClipKernels {
 public:
  // All in fp64: square_sum is a scalar, conditions [n] for any n.
  virtual void scale(const Tensor& square_sum, const Tensor& conditions, double clip_norm,
                     const GradientScale& result) const = 0;

 protected:
  ~ClipKernels() = default;
};

const ClipKernels& cuda_clip();

}  // namespace infini
