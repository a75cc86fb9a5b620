// Local attention by cuDNN's fused engines.
#pragma once

#include <string>

#include "tensor/ops/attention.h"

namespace infini {

// Both compute what AttentionKernels says. They return false, with nothing done, where cuDNN is not
// built in or has no engine: types other than bf16, windows, heads that are not 64 or 128 wide, and
// lengths and devices that this version of cuDNN gets wrong.
bool attention_cudnn(const AttentionKernels::Attention& args);

// The same inputs give the same bytes while `deterministic`: cuDNN then keeps the gradient of all
// scores of some segments in memory, else it adds to the gradient of the queries by atomics.
bool attention_grad_cudnn(const AttentionKernels::AttentionGrad& args, bool deterministic = true);

// Why the last of these calls that returned false did so; empty before one did.
std::string attention_cudnn_reason();

}  // namespace infini
