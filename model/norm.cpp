#include "model/norm.h"

#include "tensor/ops/elementwise.h"
#include "tensor/ops/norm.h"

namespace infini {

ParameterSpec Norm::spec(const ModelConfig& config, const std::string& name) {
  return {.name = name,
          .shape = {config.d_model},
          .mean = config.offset_norms ? 0.0 : 1.0,
          .full_precision = true};
}

Tensor Norm::operator()(const Pass& pass, const Tensor& x) const {
  const Tensor weight = pass(weight_);
  return rms_norm(x, offset_ == 0 ? weight : affine(weight, 1, offset_), eps_);
}

}  // namespace infini
