// Local attention by kernels of ours for Hopper.
#pragma once

#include "tensor/ops/attention.h"

namespace infini {

// What AttentionKernels says; the same inputs give the same bytes. With turn_back, args.drotated is
// not looked at. False, with nothing done, for types other than bf16, heads that are not 64 or 128
// wide, and devices other than of capability 9.0.
bool attention_grad_hopper(const AttentionKernels::AttentionGrad& args,
                           const TurnBack* turn_back = nullptr);

}  // namespace infini
