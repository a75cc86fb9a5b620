// The feed-forward part of a block: down(activation(up(x))), or down(silu(gate(x)) * up(x)) for
// swiglu.
#pragma once

#include "model/config.h"
#include "tensor/pass.h"
#include "tensor/tensor_group.h"

namespace infini {

class FeedForward {
 public:
  // `group`: those with the other inner columns; null: there are none.
  FeedForward(const ModelConfig& config, const Parameters& parameters, const std::string& prefix,
              const TensorGroup* group = nullptr);
  static void declare(const ModelConfig& config, const std::string& prefix,
                      std::vector<ParameterSpec>& specs);

  // x and residual [R, D] -> [R, D], residual added.
  Tensor operator()(const Pass& pass, const Tensor& x, const Tensor& residual) const;

 private:
  Activation activation_;
  const TensorGroup* group_;
  Parameter up_, down_;  // up_ is gate and up in one for swiglu
};

}  // namespace infini
