// Rows that stand in a batch row, and others in the place of those that do not:
//   y[b, m, :] = present[b, m] ? x[b, m, :] : otherwise[m, :].
#pragma once

#include "tensor/tape.h"

namespace infini {

// x [B, M, D]; present [B, M] u8, 1: the row stands; otherwise [M, D] in the accumulator of the
// type of x, or empty: zeros -> [B, M, D].
Tensor standing_rows(const Tensor& x, const Tensor& present, const Tensor& otherwise);

// The same where the others are as many: present[b, m] ? x[b, m, :] : otherwise[b, m, :], both
// [B, M, D] of one type.
Tensor chosen_rows(const Tensor& x, const Tensor& otherwise, const Tensor& present);

// The N rows of each batch row turned around, a_b places where present [B, M] u8 has a_b zeros:
//   kFirst:  y[b, i] = x[b, (i + a_b) mod N]
//   kBack:   y[b, (i + a_b) mod N] = x[b, i]
// Where the first a_b of M rows do not stand, kFirst puts those that do first, all others after
// them, and those that do not last; kBack undoes it. x [B, N, D] -> [B, N, D].
enum class Turn { kFirst, kBack };
Tensor turn_rows(const Tensor& x, const Tensor& present, Turn turn);

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
  struct Chosen {
    Tensor x, otherwise, present, y;
  };
  struct ChosenGrad {
    Tensor present, dy;
    GradTarget dx, dotherwise;
  };
  struct Turned {
    Tensor x, present;
    Turn turn;
    GradTarget y;
  };
  virtual void rows(const Rows& args) const = 0;
  // dotherwise is summed over batch rows in their order.
  virtual void rows_grad(const RowsGrad& args) const = 0;
  virtual void chosen(const Chosen& args) const = 0;
  virtual void chosen_grad(const ChosenGrad& args) const = 0;
  virtual void turn(const Turned& args) const = 0;

 protected:
  ~StandingRowsKernels() = default;
};

const StandingRowsKernels& cuda_standing_rows();

}  // namespace infini
