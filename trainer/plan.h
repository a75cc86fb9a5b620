// What a run would need and reach on some number of GPUs, worked out without one.
#pragma once

#include <optional>
#include <string>

#include "trainer/plan_time.h"

namespace infini {

struct Plan {
  PlannedRank rank;
  int gpus_per_node = 8;
  CardFigures figures;
  PlannedStep step;
  std::vector<Exchange> traffic;
  std::optional<StepTime> time;  // only for train.compute = bf16, which the figures are of

  int ranks() const { return rank.axes.ranks(); }
  std::int64_t context_bytes() const;
  std::int64_t card_bytes() const;
  bool fits() const { return step.peak_bytes + context_bytes() <= card_bytes(); }
  // Of all GPUs; 0 without a time.
  double tokens_per_second() const;
  double days() const;  // of the run's steps
};

// `ranks` 0: as many as the axes multiply to, parallel.data = 0 counting as 1. Throws ConfigError
// for what training would refuse too.
Plan make_plan(const RunConfig& config, int ranks, int gpus_per_node,
               const CardFigures& figures = {});

// A table for people, and the same for machines: bytes, seconds.
std::string plan_text(const Plan& plan);
std::string plan_json(const Plan& plan);

}  // namespace infini
