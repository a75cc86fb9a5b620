// How long a token takes to generate, beside the time to read what it needs.
#pragma once

#include "trainer/bench_kernels.h"

namespace infini {

// One JSON line: greedy generation of one sequence after a full segment, at the beginning and at
// the end of the next one. A token needs every matrix once, the keys and values of the segment so
// far, and the memory of all layers.
void bench_generation(const RunConfig& config, Device device, const Ceilings& ceilings);

}  // namespace infini
