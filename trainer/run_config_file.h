// The YAML file of a run, with the model keys that a run takes over from what it begins with.
#pragma once

#include "trainer/config_reader.h"
#include "trainer/run_config.h"

namespace infini {

// Whether the file is read to begin a run, to continue the one in its directory, or only to know
// what a run would need.
enum class ReadFor { kBeginning, kContinuing, kPlanning };

// With init_from, keys of `model` and `origin` that neither the file nor an override gives are
// those of the checkpoint that it names; of a run that goes on, those that the run was begun with.
// A plan may come before the checkpoint: a file that gives the model's layers and width needs none.
RunConfig read_run_config(const std::filesystem::path& file,
                          const std::vector<std::string>& overrides = {},
                          ReadFor purpose = ReadFor::kBeginning);

}  // namespace infini
