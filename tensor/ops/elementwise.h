// Small operations on whole tensors that belong to no family.
#pragma once

#include "tensor/tape.h"

namespace infini {

// target += source, or target = source when the target does not accumulate. Any floating-point
// types.
void add_into(const GradTarget& target, const Tensor& source);

// The columns of target [R, C] from `first` on += source [R, c], of its type.
void add_into_columns(const Tensor& target, std::int64_t first, const Tensor& source);

// x + y, same shape and type.
Tensor add(const Tensor& x, const Tensor& y);

// factor x + offset.
Tensor affine(const Tensor& x, double factor, double offset);

// Writes source converted to the type of target; same size.
void convert_into(const Tensor& target, const Tensor& source);

// The sum, and the sum of squares, as an fp64 scalar on the device of the values, in an order that
// depends on the size alone. NaN and infinity come through.
Tensor sum(const Tensor& values);
Tensor square_sum(const Tensor& values);

// What a device provides for this family: elementwise.cpp for the CPU, elementwise.cu for CUDA.
class ElementwiseKernels {
 public:
  virtual void add_into(const Tensor& target, const Tensor& source, bool accumulate) const = 0;
  virtual void add_into_columns(const Tensor& target, std::int64_t first,
                                const Tensor& source) const = 0;
  virtual void add(const Tensor& x, const Tensor& y, const Tensor& sum) const = 0;
  // target (+)= factor source + offset, of one type.
  virtual void affine_into(const GradTarget& target, const Tensor& source, double factor,
                           double offset) const = 0;
  // Into an fp64 scalar.
  virtual void sum(const Tensor& values, bool of_squares, const Tensor& total) const = 0;

 protected:
  ~ElementwiseKernels() = default;
};

const ElementwiseKernels& cuda_elementwise();

}  // namespace infini
