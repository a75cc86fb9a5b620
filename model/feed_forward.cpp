#include "model/feed_forward.h"

#include <cmath>

#include "tensor/ops/activation.h"
#include "tensor/ops/feed_forward.h"
#include "tensor/ops/product.h"

namespace infini {

void FeedForward::declare(const ModelConfig& config, const std::string& prefix,
                          std::vector<ParameterSpec>& specs) {
  const std::int64_t width = config.d_model, inner = config.inner_width();
  const auto deviation = [&](std::int64_t fan_in) {
    return config.init_deviation > 0 ? config.init_deviation
                                     : 1 / std::sqrt(static_cast<double>(fan_in));
  };
  if (config.activation == Activation::kSwiglu)
    specs.push_back(
        {.name = prefix + "gate.weight", .shape = {inner, width}, .deviation = deviation(width)});
  specs.push_back(
      {.name = prefix + "up.weight", .shape = {inner, width}, .deviation = deviation(width)});
  specs.push_back({.name = prefix + "down.weight",
                   .shape = {width, inner},
                   .deviation = deviation(inner) / std::sqrt(2.0 * config.layers)});
}

FeedForward::FeedForward(const ModelConfig& config, const Parameters& parameters,
                         const std::string& prefix)
    : activation_(config.activation),
      up_(config.activation == Activation::kSwiglu
              ? parameters.joined({prefix + "gate.weight", prefix + "up.weight"})
              : parameters[prefix + "up.weight"]),
      down_(parameters[prefix + "down.weight"]) {}

Tensor FeedForward::operator()(const Pass& pass, const Tensor& x, const Tensor& residual) const {
  if (activation_ == Activation::kGelu)
    return gelu_feed_forward(x, pass(up_), pass(down_), residual);
  const Tensor inner = linear(x, pass(up_));
  const Tensor active = activation_ == Activation::kRelu ? relu(inner) : swiglu(inner);
  return linear(active, pass(down_), residual);
}

}  // namespace infini
