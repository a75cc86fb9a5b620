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
  const auto projection = [&](const char* name) {
    specs.push_back({.name = prefix + name,
                     .shape = {inner, width},
                     .deviation = deviation(width),
                     .division = {.axis = 0}});
  };
  if (config.has_gated_activation()) projection("gate.weight");
  projection("up.weight");
  specs.push_back({.name = prefix + "down.weight",
                   .shape = {width, inner},
                   .deviation = deviation(inner) / std::sqrt(2.0 * config.layers),
                   .division = {.axis = 1}});
}

FeedForward::FeedForward(const ModelConfig& config, const Parameters& parameters,
                         const std::string& prefix, const TensorGroup* group)
    : activation_(config.activation),
      group_(group),
      up_(config.has_gated_activation()
              ? parameters.joined({prefix + "gate.weight", prefix + "up.weight"})
              : parameters[prefix + "up.weight"]),
      down_(parameters[prefix + "down.weight"]) {}

namespace {

Tensor activated(Activation activation, const Tensor& x) {
  switch (activation) {
    case Activation::kGelu:
      return gelu(x);
    case Activation::kRelu:
      return relu(x);
    case Activation::kSwiglu:
      return swiglu(x);
    case Activation::kGeglu:
      return geglu(x);
  }
  throw Error("feed_forward: unknown activation");
}

}  // namespace

Tensor FeedForward::operator()(const Pass& pass, const Tensor& x, const Tensor& residual) const {
  if (activation_ == Activation::kGelu)
    return gelu_feed_forward(x, pass(up_), pass(down_), residual, group_);
  const Tensor inner = linear(x, pass(up_), {}, {.group = group_, .by = WeightSplit::By::kOutputs});
  return linear(activated(activation_, inner), pass(down_), residual,
                {.group = group_, .by = WeightSplit::By::kInputs});
}

}  // namespace infini
