// How long a step takes, from its work and what a card reaches.
#pragma once

#include "trainer/plan_traffic.h"

namespace infini {

struct StepTime {
  double products = 0, attention = 0, memory = 0, other = 0, optimizer = 0;
  double exchange = 0;  // what of it is not hidden, and what it takes from what it hides behind

  double total() const { return products + attention + memory + other + optimizer + exchange; }
};

// Seconds of the kernels of `work` on one card that does bf16.
StepTime kernel_time(const Work& work, const OptimConfig& optim, const CardFigures& figures);

// The same with what the exchanges of the step add.
StepTime step_time(const PlannedRank& rank, const PlannedStep& step,
                   const std::vector<Exchange>& traffic, const CardFigures& figures);

}  // namespace infini
