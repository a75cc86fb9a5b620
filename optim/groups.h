// Which settings a parameter is updated with.
#pragma once

#include <string_view>

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

// Those of the first group that matches; else the general ones, with decay for matrices alone.
UpdateSettings settings_of(const OptimConfig& config, const Parameter& parameter);

}  // namespace infini
