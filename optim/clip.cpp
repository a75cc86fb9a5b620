#include "optim/clip.h"

#include <cmath>
#include <limits>

#include "tensor/ops/elementwise.h"

namespace infini {
namespace {

class CpuClip final : public ClipKernels {
 public:
  void scale(const Tensor& square_sum, const Tensor& conditions, double clip_norm,
             const GradientScale& result) const override {
    const double norm = std::sqrt(square_sum.item());
    bool finite = std::isfinite(norm);
    for (std::int64_t i = 0; i < conditions.size(); ++i)
      finite = finite && std::isfinite(conditions.data<double>()[i]);
    const double scale = clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1;
    *result.norm.data<double>() = norm;
    *result.scale.data<double>() = finite ? scale : std::numeric_limits<double>::quiet_NaN();
  }
};

const CpuClip cpu_clip;

}  // namespace

GradientScale gradient_scale(const Parameters& parameters, std::span<const Tensor> conditions,
                             double clip_norm) {
  return gradient_scale(square_sum(parameters.gradients()), conditions, clip_norm);
}

GradientScale gradient_scale(const Tensor& squares, std::span<const Tensor> conditions,
                             double clip_norm) {
  const Device device = squares.device();
  const auto count = static_cast<std::int64_t>(conditions.size());
  const Tensor all = Tensor::empty({count}, DType::kFloat64, device);
  for (std::int64_t i = 0; i < count; ++i) {
    const Tensor& condition = conditions[i];
    check(condition.size() == 1 && condition.device() == device, "gradient_scale: condition ", i,
          " is ", condition.shape(), " on ", condition.device(), ", expected a scalar on ", device);
    convert_into(all.slice(i, 1), condition);
  }
  const GradientScale result{.norm = Tensor::empty_like(squares),
                             .scale = Tensor::empty_like(squares)};
  on<cpu_clip, cuda_clip>(device).scale(squares, all, clip_norm, result);
  return result;
}

}  // namespace infini
