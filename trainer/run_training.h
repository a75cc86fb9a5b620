// One training run from its configuration to its end: data, steps, reports, validation and
// checkpoints, all in the run's directory.
#pragma once

#include <chrono>
#include <optional>

#include "distributed/world.h"
#include "trainer/run_config.h"

namespace infini {

enum class RunStart {
  kFreshDirectory,  // at step 0, in config.directory or the first of its -2, -3, ... without a run
  kCheckpoint,      // at the newest checkpoint in config.directory; ConfigError where there is none
  kWhereItStands  // at the newest checkpoint in config.directory, or at step 0 where there is none
};

struct RunRequest {
  RunStart start = RunStart::kFreshDirectory;
  std::int64_t stop_after = 0;  // steps of this call; 0: to the end
  std::optional<std::chrono::steady_clock::time_point> stop_at{};  // stops after the step that ends
                                                                   // later than this on any rank
};

// Trains on all ranks of the run, which make the same call. Returns kExitDone, or kExitStopped when
// it was saved before its last step because of the request, SIGTERM or SIGINT.
int run_training(const World& world, RunConfig config, const RunRequest& request);

}  // namespace infini
