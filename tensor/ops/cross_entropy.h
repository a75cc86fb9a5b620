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

// x [R, D], weight [N, D], targets [R] int32 in [-1, N) (checked on the CPU alone), weights [R]
// fp32 or empty for ones. Gradients are computed with the logits of a chunk still at hand: that of
// `weight` is added at once, so when anything is watched the loss must become the root of the
// backward pass, with gradient 1; backward on the CPU throws otherwise.
CrossEntropy cross_entropy(const Tensor& x, const Tensor& weight, const Tensor& targets,
                           const Tensor& weights, double scale);

// Of [R, N] logits, the rows that are alive at a time: on the CPU what its caches hold; on a GPU as
// many as keep the products large, cut evenly into tiles' multiples.
std::int64_t logit_rows(std::int64_t rows, std::int64_t vocabulary, Device device);

// What a device provides: cross_entropy.cpp for the CPU, cross_entropy.cu for CUDA.
class CrossEntropyKernels {
 public:
  // A chunk of r rows. Logits are in the type of x or its accumulator.
  struct Chunk {
    Tensor logits;            // [r, N], destroyed
    Tensor targets, weights;  // [r]; weights may be empty
    double scale;
    Tensor nll;      // [r]
    Tensor dlogits;  // [r, N] in the type of x: scale weights (softmax - one hot), 0 where a row
                     // has no target. Empty where nobody asks; may be the logits themselves.
  };
  virtual void chunk(const Chunk& args) const = 0;
  // loss = scale * sum of weights * nll, summed in fp64 in a fixed order.
  virtual void loss(const Tensor& nll, const Tensor& weights, double scale,
                    const Tensor& loss) const = 0;

 protected:
  ~CrossEntropyKernels() = default;
};

const CrossEntropyKernels& cuda_cross_entropy();

}  // namespace infini
