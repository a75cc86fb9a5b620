// The recurrences of the memory over segments, as scans over states that hold X numbers for each
// batch row.
//
//   accumulate:  state_s = state_{s-1} + sums_s
//   affine:      state_s = state_{s-1} - A_s state_{s-1} + sums_s
//
// In the affine form every head is a product of K x K matrices. Before segment s the state is
// replaced by zeros where resets[b, s] is 1. Gradients do not cross the border before segment s
// where detach[s] is 1 (truncated back-propagation); the state itself does.
#pragma once

#include "tensor/tape.h"

namespace infini {

struct ScanBorders {
  Tensor resets;                     // [B, S] u8, or empty: no reset
  std::vector<std::uint8_t> detach;  // [S], or empty: gradients cross everywhere
};

struct Scan {
  Tensor before;  // [B, S, ...] the state that segment s reads
  Tensor after;   // [B, ...] the state after the last segment
};

// sums [B, S, ...], initial [B, ...] or empty for zeros.
Scan scan(const Tensor& sums, const Tensor& initial, const ScanBorders& borders);

// overlap and sums [B, S, Hk, K, K], initial [B, Hk, K, K] or empty for zeros.
Scan affine_scan(const Tensor& overlap, const Tensor& sums, const Tensor& initial,
                 const ScanBorders& borders);

// What a device provides for this family: scan.cpp for the CPU, scan.cu for CUDA. An empty overlap
// means `accumulate`.
class ScanKernels {
 public:
  struct Forward {
    Tensor overlap, sums, initial;
    Tensor resets;
    Tensor before, after;
  };
  struct Backward {
    Shape shape;  // of the sums
    DType dtype;
    Tensor overlap, before;  // empty when accumulating
    Tensor resets;
    std::vector<std::uint8_t> detach;
    Tensor dbefore, dafter;  // either may be empty
    GradTarget doverlap, dsums, dinitial;
  };
  virtual void scan(const Forward& args) const = 0;
  virtual void scan_grad(const Backward& args) const = 0;

 protected:
  ~ScanKernels() = default;
};

const ScanKernels& cuda_scan();

}  // namespace infini
