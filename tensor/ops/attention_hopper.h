// Local attention by kernels of ours for Hopper.
#pragma once

#include "tensor/ops/attention.h"

namespace infini {

// What of the backward pass runs, and how its kernels are shaped, for whoever makes it faster. The
// default is the fastest that was measured.
struct HopperGradPlan {
  static constexpr int kShapes = 2;
  bool keys = true, queries = true;
  int key_shape = 0, query_shape = 0;  // below kShapes
};

// What AttentionKernels says; the same inputs give the same bytes. With turn_back, args.drotated is
// not looked at. False, with nothing done, for types other than bf16, heads that are not 64 or 128
// wide, and devices other than of capability 9.0.
bool attention_grad_hopper(const AttentionKernels::AttentionGrad& args,
                           const TurnBack* turn_back = nullptr, const HopperGradPlan& plan = {});

}  // namespace infini
