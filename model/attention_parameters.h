// What the attentions of all architectures have in common.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "model/config.h"
#include "tensor/parameters.h"

namespace infini {

// Of a matrix with so many inputs.
inline double start_deviation(const ModelConfig& config, std::int64_t fan_in) {
  return config.init_deviation > 0 ? config.init_deviation
                                   : 1 / std::sqrt(static_cast<double>(fan_in));
}

// What scores are multiplied by.
inline double attention_scale(const ModelConfig& config) {
  return 1 / std::sqrt(static_cast<double>(config.softmax_scale == SoftmaxScale::kHead
                                               ? config.head_width()
                                               : config.d_model));
}

// prefix + query.weight [H K, D], key.weight and value.weight [Hk K, D], output.weight [D, H K].
inline void declare_projections(const ModelConfig& config, const std::string& prefix,
                                std::vector<ParameterSpec>& specs) {
  const std::int64_t width = config.d_model,
                     queries = std::int64_t{config.heads} * config.head_width();
  const std::int64_t keys = std::int64_t{config.key_value_heads()} * config.head_width();
  const auto projection = [&](const char* name, std::int64_t outputs) {
    specs.push_back({.name = prefix + name,
                     .shape = {outputs, width},
                     .deviation = start_deviation(config, width),
                     .division = {.axis = 0}});
  };
  projection("query.weight", queries);
  projection("key.weight", keys);
  projection("value.weight", keys);
  // What adds to the residual stream starts smaller, so that the stream does not grow with depth
  // (GPT-2).
  specs.push_back({.name = prefix + "output.weight",
                   .shape = {width, queries},
                   .deviation = start_deviation(config, queries) / std::sqrt(2.0 * config.layers),
                   .division = {.axis = 1}});
}

}  // namespace infini
