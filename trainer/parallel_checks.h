// What of a run's configuration can be carried out on its ranks.
#pragma once

#include "distributed/layout.h"
#include "trainer/run_config.h"

namespace infini {

// Throws ConfigError, naming the numbers, for what the axes do not divide. A vocabulary of 0 is not
// known yet and passes.
void check_parallel(const RunConfig& config, const Axes& axes);

}  // namespace infini
