// What one rank holds and does in a training step: trainer/training.h and model/recurrence.h in
// sizes.
#pragma once

#include "distributed/layout.h"
#include "trainer/plan_lender.h"
#include "trainer/run_config.h"

namespace infini {

// A run as one of its ranks sees it. Ranks differ by what they own; the plan is of the one that
// owns most.
struct PlannedRank {
  RunConfig config;  // with the vocabulary filled in
  Axes axes;
  ModelConfig model;              // this rank's heads, feed-forward columns and vocabulary
  std::int64_t row_tokens = 0;    // of a whole row; of the longest where rows differ
  std::int64_t parameters = 0;    // of this rank's model
  std::int64_t trained = 0;       // those that are not frozen
  std::int64_t owned = 0;         // those that it updates
  std::int64_t kept = 0;          // those whose values it keeps where ranks divide them
  std::int64_t owner_pieces = 0;  // ranges of parameters with one owner each, everyone's left out
  std::int64_t everyones_pieces = 0;  // ranges of those
  std::int64_t everyones = 0;         // those that every rank updates: norms, gates
  Frozen frozen;                      // by optim.groups
  std::vector<LentPart> parts;        // what ranks lend each other where they divide it

  std::int64_t rows() const { return config.data.batch_rows / axes.data; }
  std::int64_t step_tokens() const { return config.data.batch_rows * row_tokens; }
  bool divides(Shard shard) const { return axes.copies() > 1 && config.parallel.shard >= shard; }
  std::vector<ParameterSpec> specs() const;  // of its parameters
  // Those of its parameters that the rank with the most of them updates (parameter_shards.h), and
  // with them the frozen ones that it looks after.
  std::vector<const ParameterSpec*> updated(const std::vector<ParameterSpec>& specs) const;
  std::vector<const ParameterSpec*> looked_after(const std::vector<ParameterSpec>& specs) const;
};

// Throws ConfigError for what the ranks cannot share, as training does, and where the vocabulary is
// that of a store which is not there.
PlannedRank planned_rank(const RunConfig& config, int ranks);

struct PlannedStep {
  MemoryUse peak;                   // at the moment when most is in use
  std::int64_t peak_bytes = 0;      // the same with rounding
  std::int64_t reserved_bytes = 0;  // with the blocks that the allocator keeps for later
  Work work;
  Work last_backward_begin, last_backward_end;  // what is done when the last backward pass is there
  std::int64_t tapes = 0;
};

PlannedStep planned_step(const PlannedRank& rank, Device device);

}  // namespace infini
