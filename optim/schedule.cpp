#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace infini {

double learning_rate_factor(const OptimConfig& config, std::int64_t step,
                            std::int64_t total_steps) {
  check(step >= 1, "learning_rate_factor: step ", step, ", steps are counted from 1");
  const auto now = static_cast<double>(step);
  const auto warmup = static_cast<double>(config.warmup_steps);
  if (step <= config.warmup_steps) return now / warmup;

  switch (config.schedule) {
    case Schedule::kConstant:
      return 1;
    case Schedule::kInverseSqrt:
      return std::sqrt(std::max(warmup, 1.0) / now);
    case Schedule::kCosine:
      break;
  }
  if (step >= total_steps) return config.final_fraction;
  const double part = (now - warmup) / (static_cast<double>(total_steps) - warmup);
  return config.final_fraction +
         (1 - config.final_fraction) * (1 + std::cos(std::numbers::pi * part)) / 2;
}

}  // namespace infini
