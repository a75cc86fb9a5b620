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

// Numbers [begin, begin + the size of a state) of every row of all [P, n]: what each of P groups of
// segments has of a state [B, ...], one group after the other.
struct GroupPart {
  Tensor all;
  std::int64_t begin = 0;
};

// The states around group `index`, from what each group adds: `before` [B, ...] is that before it,
// `after` that after the last one. A group in which something resets (resets [B, P]) leaves its own
// sums, and no gradient passes it, nor one that detaches ([P]). Same shape and order of additions
// as a scan over groups. Not on the tape: what gradients need of other groups, the caller gathers.
Scan group_scan(const GroupPart& sums, const Shape& state, const Tensor& initial, int index,
                const ScanBorders& borders);
// From the gradients of every group's `before`, and of `after` [B, ...] or empty for zeros.
void group_scan_grad(const GroupPart& dbefore, const Shape& state, const Tensor& dafter, int index,
                     const ScanBorders& borders, const GradTarget& dsums,
                     const GradTarget& dinitial);

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
  struct GroupForward {
    GroupPart sums;
    int index;
    Tensor initial;
    Tensor resets;
    Tensor before, after;
  };
  struct GroupBackward {
    GroupPart dbefore;
    Shape state;
    int index;
    Tensor resets;
    std::vector<std::uint8_t> detach;
    Tensor dafter;  // may be empty
    GradTarget dsums, dinitial;
  };
  virtual void scan(const Forward& args) const = 0;
  virtual void scan_grad(const Backward& args) const = 0;
  virtual void group_scan(const GroupForward& args) const = 0;
  virtual void group_scan_grad(const GroupBackward& args) const = 0;

 protected:
  ~ScanKernels() = default;
};

const ScanKernels& cuda_scan();

}  // namespace infini
