// Trading time for memory: a piece of a forward pass that keeps its inputs only and runs again in
// the backward pass.
#pragma once

#include <functional>

#include "tensor/pass.h"

namespace infini {

using Recomputed =
    std::function<std::vector<Tensor>(const Pass& pass, const std::vector<Tensor>& inputs)>;

// piece(pass, inputs), recorded as one entry. The piece must be a pure function of its inputs, the
// parameters that it obtains through the pass it is given, and pass.key. Inputs may be empty
// tensors.
std::vector<Tensor> recompute(const Pass& pass, const std::vector<Tensor>& inputs,
                              const Recomputed& piece);

}  // namespace infini
