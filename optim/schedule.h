// The learning rate over a run.
#pragma once

#include "optim/config.h"

namespace infini {

// The share of the peak rate that step `step` of `total_steps` uses, steps counted from 1. With w
// warm-up steps, f = final_fraction and t = (step - w) / (total_steps - w):
//   step <= w      step / w
//   cosine         f + (1 - f) (1 + cos(pi t)) / 2, which is f at the last step and after it
//   inverse_sqrt   sqrt(max(w, 1) / step)
//   constant       1
double learning_rate_factor(const OptimConfig& config, std::int64_t step, std::int64_t total_steps);

}  // namespace infini
