// Commands that work on one rank or on many.
#pragma once

#include <functional>

#include "distributed/world.h"

namespace infini {

// Runs `work` on every rank of the run and returns its exit code. What a rank throws ends the run
// on all of them, with one message that names it. Only the first rank logs what it does.
int on_ranks(const std::function<int(const World&)>& work);

// Takes the GPU at this rank's place among the ranks of this machine. Throws ConfigError where
// there are fewer GPUs than ranks.
void choose_gpu(const World& world);

}  // namespace infini
