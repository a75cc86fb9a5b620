#include <cmath>

#include "optim/clip.h"
#include "tensor/ops/cuda_math.cuh"

namespace infini {
namespace {

// One thread: a handful of numbers.
__global__ void scale_kernel(const double* square_sum, const double* conditions, std::int64_t count,
                             double clip_norm, double* norm, double* scale) {
  const double length = sqrt(*square_sum);
  bool finite = isfinite(length);
  for (std::int64_t i = 0; i < count; ++i) finite = finite && isfinite(conditions[i]);
  *norm = length;
  *scale = !finite ? NAN : clip_norm > 0 && length > clip_norm ? clip_norm / length : 1;
}

class CudaClip final : public ClipKernels {
 public:
  void scale(const Tensor& square_sum, const Tensor& conditions, double clip_norm,
             const GradientScale& result) const override {
    scale_kernel<<<1, 1, 0, cuda_stream()>>>(
        square_sum.data<double>(), conditions.data<double>(), conditions.size(), clip_norm,
        result.norm.data<double>(), result.scale.data<double>());
    check_launch("gradient_scale");
  }
};

}  // namespace

const ClipKernels& cuda_clip() {
  static const CudaClip kernels;
  return kernels;
}

}  // namespace infini
