// Normalisation over time (Ma et al. 2024, Megalodon, section 3.2). The C channels fall into G
// groups side by side; a token is normalised by what its document has shown of each group up to and
// with it. With n_t tokens by then, all numbers of the group in them counting alike,
//   mean_t = mean of x[u, c],   var_t = mean of (x[u, c] - mean_t)^2   over u <= t, c in the group
//   y[t, c] = (x[t, c] - mean_t) / sqrt(var_t + eps) * weight[c] + bias[c]
// Padding is normalised and counts for nothing; while nothing counts, the mean is 0 and the
// variance 1. Counts, means and variances go on from segment to segment, so that the statistics of
// a text are those of all of it; a reset empties them, and gradients stop where borders detach.
#pragma once

#include "tensor/ops/heads.h"
#include "tensor/ops/scan.h"

namespace infini {

// In the accumulator type.
struct TimestepStatistics {
  Tensor tokens;   // [B, 1] n; not recorded
  Tensor moments;  // [B, G, 2] mean and variance
};

struct TimestepNormed {
  Tensor y;                  // [R, C]
  TimestepStatistics after;  // the last segment
};

// x [R, C], rows in the order of the layout, of which heads say nothing; weight and bias [C] in the
// accumulator type; before the first segment [B, 1] and [B, G, 2], or both empty: nothing counted
// yet; keep [R] u8, 0: padding, or empty.
TimestepNormed timestep_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                             const TimestepStatistics& before, const Tensor& keep,
                             const ScanBorders& borders, const HeadLayout& layout, int groups,
                             double eps);

// What a device provides: timestep_norm.cpp for the CPU, timestep_norm.cu for CUDA.
class TimestepNormKernels {
 public:
  struct Norm {
    Tensor x, weight, bias;
    TimestepStatistics before;  // zeros where nothing counts
    Tensor keep, resets;
    HeadLayout layout;
    int groups;
    double eps;
    Tensor y;
    Tensor counts;   // [R] n_t
    Tensor moments;  // [R, G, 2] mean_t and var_t
    TimestepStatistics after;

    std::int64_t row_tokens() const { return layout.segments * layout.tokens; }
  };
  struct NormGrad {
    Norm forward;
    std::vector<std::uint8_t> detach;
    Tensor dy, dafter;  // either may be empty
    GradTarget dx, dweight, dbias, dbefore;
  };
  virtual void norm(const Norm& args) const = 0;
  virtual void norm_grad(const NormGrad& args) const = 0;

 protected:
  ~TimestepNormKernels() = default;
};

const TimestepNormKernels& cuda_timestep_norm();

}  // namespace infini
