// Whether a configuration goes on with a run or makes another of it.
#pragma once

#include <filesystem>

#include "trainer/run_config.h"

namespace infini {

// ConfigError where `now` has another model, other data or another seed than `then`, that of the
// checkpoint to be resumed; where a corpus lies may change. Says what else will be trained
// differently from here on.
void check_same_run(const RunConfig& then, const RunConfig& now,
                    const std::filesystem::path& checkpoint);

}  // namespace infini
