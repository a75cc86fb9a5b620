// RMSNorm with the weight of a model.
#pragma once

#include "model/config.h"
#include "tensor/pass.h"

namespace infini {

class Norm {
 public:
  Norm() = default;  // none
  Norm(const ModelConfig& config, const Parameter& weight)
      : weight_(weight), eps_(config.norm_eps), offset_(config.offset_norms ? 1 : 0) {}

  static ParameterSpec spec(const ModelConfig& config, const std::string& name);

  // Rows of width D, each divided by its root mean square and multiplied by the weight, or by 1 +
  // weight where the model's norms are offset.
  Tensor operator()(const Pass& pass, const Tensor& x) const;

  const Parameter& weight() const { return weight_; }

 private:
  Parameter weight_;
  double eps_ = 0, offset_ = 0;
};

}  // namespace infini
