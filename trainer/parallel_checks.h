// What of a run's configuration can be carried out on its ranks.
#pragma once

#include "distributed/layout.h"
#include "trainer/run_config.h"

namespace infini {

// Throws ConfigError, naming the numbers, for what the axes of the layout do not divide.
void check_parallel(const RunConfig& config, const Layout& layout);

}  // namespace infini
