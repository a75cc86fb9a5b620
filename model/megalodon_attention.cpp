#include "model/megalodon_attention.h"

#include <cmath>

#include "model/attention_parameters.h"
#include "tensor/ops/bias.h"
#include "tensor/ops/product.h"
#include "tensor/ops/rotary_attention.h"

namespace infini {

void MegalodonAttention::declare(const ModelConfig& config, const std::string& prefix,
                                 std::vector<ParameterSpec>& specs) {
  const std::int64_t width = config.d_model, averages = config.ema_size,
                     heads = std::int64_t{config.heads} * config.head_width();
  const auto matrix = [&](const char* name, std::int64_t outputs, std::int64_t inputs,
                          double share) {
    specs.push_back({.name = prefix + name,
                     .shape = {outputs, inputs},
                     .deviation = start_deviation(config, inputs) * share});
  };
  const auto numbers = [&](const char* name, const Shape& shape, double mean = 0,
                           double deviation = 0) {
    specs.push_back({.name = prefix + name,
                     .shape = shape,
                     .deviation = deviation,
                     .mean = mean,
                     .full_precision = true});
  };
  const double adding = 1 / std::sqrt(2.0 * config.layers),  // to the residual stream
      length = std::pow(config.head_width(), 0.25);
  matrix("shared.weight", heads, width, 1);
  matrix("value.weight", heads, width, 1);
  matrix("gate.weight", heads, width, 1);
  matrix("hidden.weight", width, width, adding);
  matrix("output.weight", width, heads, adding);
  numbers("shared.bias", {heads});
  numbers("value.bias", {heads});
  numbers("gate.bias", {heads});
  numbers("output.bias", {width});
  numbers("query_scale", {heads}, length);
  numbers("query_shift", {heads});
  numbers("key_scale", {heads}, length);
  numbers("key_shift", {heads});
  numbers("time_norm.weight", {width}, 1);
  numbers("time_norm.bias", {width});
  // As in the published code, but for the skip, which starts by handing its input on.
  numbers("average.alpha", {width, averages}, 0, 0.2);
  numbers("average.delta", {width, averages}, 0, 0.2);
  numbers("average.frequency", {width}, 0, 1);
  numbers("average.eta", {width, 2 * averages}, 0, 1);
  numbers("average.skip", {width}, 1);
}

MegalodonAttention::MegalodonAttention(const ModelConfig& config, const Parameters& parameters,
                                       const std::string& prefix, const Tensor& rotary_table,
                                       const TensorGroup* group)
    : architecture_(config.architecture_name()),
      groups_(config.timestep_groups()),
      averages_(config.ema_size),
      eps_(config.norm_eps),
      rotary_table_(rotary_table),
      shared_(parameters[prefix + "shared.weight"]),
      value_(parameters[prefix + "value.weight"]),
      gate_(parameters[prefix + "gate.weight"]),
      hidden_(parameters[prefix + "hidden.weight"]),
      output_(parameters[prefix + "output.weight"]),
      shared_bias_(parameters[prefix + "shared.bias"]),
      query_scale_(parameters[prefix + "query_scale"]),
      query_shift_(parameters[prefix + "query_shift"]),
      key_scale_(parameters[prefix + "key_scale"]),
      key_shift_(parameters[prefix + "key_shift"]),
      value_bias_(parameters[prefix + "value.bias"]),
      gate_bias_(parameters[prefix + "gate.bias"]),
      output_bias_(parameters[prefix + "output.bias"]),
      norm_weight_(parameters[prefix + "time_norm.weight"]),
      norm_bias_(parameters[prefix + "time_norm.bias"]),
      alpha_(parameters[prefix + "average.alpha"]),
      delta_(parameters[prefix + "average.delta"]),
      frequency_(parameters[prefix + "average.frequency"]),
      skip_(parameters[prefix + "average.skip"]),
      eta_(parameters[prefix + "average.eta"]) {
  check(!group, architecture_, ": ranks cannot share its blocks");
}

MegalodonAttention::Output MegalodonAttention::operator()(const Pass& pass, const Tensor& x,
                                                          const Span& span,
                                                          const MemoryState& memory) const {
  const OverTime state = over_time(pass, x, span, memory);
  const Tensor &normed = state.normed.y, &averaged = state.averaged.y;
  const Tensor qkv = shared_heads(linear(averaged, pass(shared_)), linear(normed, pass(value_)),
                                  {.z_bias = pass(shared_bias_),
                                   .query_scale = pass(query_scale_),
                                   .query_shift = pass(query_shift_),
                                   .key_scale = pass(key_scale_),
                                   .key_shift = pass(key_shift_),
                                   .value_bias = pass(value_bias_)},
                                  span.layout);
  const Tensor gated = gated_heads(linear(averaged, pass(gate_)), pass(gate_bias_),
                                   rotary_attention(qkv, rotary_table_, span.layout, 1));
  const Tensor hidden = linear(averaged, pass(hidden_), x);
  return {.y = add_bias(linear(gated, pass(output_), hidden), pass(output_bias_)),
          .memory = state.after()};
}

MemoryState MegalodonAttention::remember(const Pass& pass, const Tensor& x, const Span& span,
                                         const MemoryState& memory) const {
  return over_time(pass, x, span, memory).after();
}

MegalodonAttention::OverTime MegalodonAttention::over_time(const Pass& pass, const Tensor& x,
                                                           const Span& span,
                                                           const MemoryState& memory) const {
  check(!span.groups, architecture_,
        ": a segment needs the one before it; segments in groups would not have it");
  const std::int64_t batch = span.layout.batch, segments = span.layout.segments,
                     width = x.shape()[1];
  check_memory(memory, batch);
  ScanBorders borders = span.borders;
  if (!use_memory_)
    borders.resets = Tensor::of(std::vector<std::uint8_t>(batch * segments, 1), {batch, segments})
                         .to(x.device());
  const TimestepNormed normed =
      timestep_norm(x, pass(norm_weight_), pass(norm_bias_),
                    {.tokens = memory.norm_tokens, .moments = memory.norm_moments}, span.keep,
                    borders, span.layout, groups_, eps_);
  const Averaged averaged = complex_average(normed.y,
                                            {.alpha = pass(alpha_),
                                             .delta = pass(delta_),
                                             .frequency = pass(frequency_),
                                             .skip = pass(skip_),
                                             .eta = pass(eta_).reshape({width, averages_, 2})},
                                            memory.averages, span.keep, borders, span.layout);
  return {.normed = normed, .averaged = averaged};
}

MemoryState MegalodonAttention::OverTime::after() const {
  return {.averages = averaged.after,
          .norm_moments = normed.after.moments,
          .norm_tokens = normed.after.tokens};
}

void MegalodonAttention::check_memory(const MemoryState& memory, std::int64_t batch) const {
  if (!memory.averages) return;
  const Shape expected{batch, alpha_.value.shape()[0], averages_, 2};
  check(memory.averages.shape() == expected, architecture_, ": the averages are ",
        memory.averages.shape(), ", expected ", expected);
}

}  // namespace infini
