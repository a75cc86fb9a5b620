// Which settings a parameter is updated with.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "optim/config.h"
#include "tensor/parameters.h"

namespace infini {

// `pattern` describes all of `name`; * stands for any text, also for none.
bool matches(std::string_view pattern, std::string_view name);

struct UpdateSettings {
  double learning_rate = 0;  // at the peak of the schedule
  double weight_decay = 0;
  bool relative = false;  // for Adafactor

  friend bool operator==(const UpdateSettings&, const UpdateSettings&) = default;
};

// What groups freeze: parameters whose first group that matches is a frozen one.
Frozen frozen_by(const OptimConfig& config);
// Throws ConfigError where a frozen group freezes none of these, or none is left to train.
void check_frozen(const OptimConfig& config, const std::vector<ParameterSpec>& specs);
// Patterns that match none of these, the one that a configuration has by itself left out.
std::vector<std::string> idle_patterns(const OptimConfig& config,
                                       const std::vector<ParameterSpec>& specs);

// Those of the first group that matches; else the general ones, with decay for matrices alone.
UpdateSettings settings_of(const OptimConfig& config, const Parameter& parameter);

}  // namespace infini
