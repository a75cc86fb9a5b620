#include "model/feed_forward.h"

#include <cmath>

#include "tensor/ops/activation.h"
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

Tensor FeedForward::operator()(const Pass& pass, const Tensor& x) const {
  const Tensor inner = linear(x, pass(up_));
  switch (activation_) {
    case Activation::kGelu:
      return linear(gelu(inner), pass(down_));
    case Activation::kRelu:
      return linear(relu(inner), pass(down_));
    case Activation::kSwiglu:
      break;
  }
  return linear(swiglu(inner), pass(down_));
}

}  // namespace infini
