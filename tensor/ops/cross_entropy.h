// The vocabulary projection with cross-entropy, in chunks of rows: the logits of a whole batch
// never exist.
//   nll[r] = log sum_n exp(x[r] . weight[n]) - x[r] . weight[targets[r]]
//   loss   = scale * sum_r weights[r] nll[r]
// nll[r] is 0 where targets[r] is -1.
#pragma once

#include "tensor/tape.h"

namespace infini {

struct CrossEntropy {
  Tensor loss;  // scalar, accumulator type
  Tensor nll;   // [R], accumulator type, natural logarithm; carries no gradient
};

// x [R, D], weight [N, D], targets [R] int32 in [-1, N), weights [R] fp32 or empty for ones.
// Gradients are computed with the logits of a chunk still at hand: that of `weight` is added at
// once, so when anything is watched the loss must become the root of the backward pass, with
// gradient 1; backward throws otherwise.
CrossEntropy cross_entropy(const Tensor& x, const Tensor& weight, const Tensor& targets,
                           const Tensor& weights, double scale);

}  // namespace infini
