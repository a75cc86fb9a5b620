// The feed-forward part of a block: down(activation(up(x))), or down(silu(gate(x)) * up(x)) for
// swiglu.
#pragma once

#include "model/config.h"
#include "tensor/pass.h"

namespace infini {

class FeedForward {
 public:
  FeedForward(const ModelConfig& config, const Parameters& parameters, const std::string& prefix);
  static void declare(const ModelConfig& config, const std::string& prefix,
                      std::vector<ParameterSpec>& specs);

  // x and residual [R, D] -> [R, D], residual added.
  Tensor operator()(const Pass& pass, const Tensor& x, const Tensor& residual) const;

 private:
  Activation activation_;
  Parameter up_, down_;  // up_ is gate and up in one for swiglu
};

}  // namespace infini
