// Clipping by the norm of all gradients together.
#pragma once

#include "tensor/parameters.h"

namespace infini {

// The Euclidean norm over all parameters, summed in fp64 in a fixed order. Not finite when a
// gradient is not: such a step is the caller's to skip.
double gradient_norm(const Parameters& parameters);

// What gradients of this finite norm are multiplied by, so that it becomes at most clip_norm; 1
// when clip_norm is 0. Hand it to Optimizer::step, which scales while it reads.
double clip_factor(double norm, double clip_norm);

}  // namespace infini
