// Rows that stand in a batch row, and others in the place of those that do not:
//   y[b, m, :] = present[b, m] ? x[b, m, :] : otherwise[m, :].
#pragma once

#include "tensor/tape.h"

namespace infini {

// x [B, M, D]; present [B, M] u8, 1: the row stands; otherwise [M, D] in the accumulator of the
// type of x, or empty: zeros -> [B, M, D].
Tensor standing_rows(const Tensor& x, const Tensor& present, const Tensor& otherwise);

// What a device provides: standing_rows.cpp for the CPU, standing_rows.cu for CUDA.
class StandingRowsKernels {
 public:
  struct Rows {
    Tensor x, present, otherwise;  // `otherwise` may be empty
    Tensor y;
  };
  struct RowsGrad {
    Tensor present, dy;
    GradTarget dx, dotherwise;
  };
  virtual void rows(const Rows& args) const = 0;
  // dotherwise is summed over batch rows in their order.
  virtual void rows_grad(const RowsGrad& args) const = 0;

 protected:
  ~StandingRowsKernels() = default;
};

const StandingRowsKernels& cuda_standing_rows();

}  // namespace infini
