// The vocabulary projection with cross-entropy, in chunks of rows: the logits of a whole batch
// never exist.
//   nll[r] = log sum_n exp(x[r] . weight[n]) - x[r] . weight[targets[r]]
//   loss   = scale * sum_r weights[r] nll[r]
// nll[r] is 0 where targets[r] is -1.
#pragma once

#include "tensor/tensor_group.h"

namespace infini {

struct CrossEntropy {
  Tensor loss;  // scalar, accumulator type
  Tensor nll;   // [R], accumulator type, natural logarithm; carries no gradient
};

// x [R, D], weight [N, D], targets [R] int32 in [-1, N) (checked on the CPU alone), weights [R]
// fp32 or empty for ones. Gradients are computed with the logits of a chunk still at hand: that of
// `weight` is added at once, so when anything is watched the loss must become the root of the
// backward pass, with gradient 1; backward on the CPU throws otherwise.
//
// Of a vocabulary that a group divides, each process has [N / P, D] of the weight and computes
// these logits alone. They tell each other three numbers a row, and all get the same loss; the
// gradient of x is summed over the group.
CrossEntropy cross_entropy(const Tensor& x, const Tensor& weight, const Tensor& targets,
                           const Tensor& weights, double scale, const TensorGroup* group = nullptr);

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

  // A chunk of which this process has columns [first, first + n) of N, in two steps. The first
  // finds of each row the highest logit, the sum of exp(logit - highest), and the target's logit, 0
  // where another process has it.
  struct ChunkSums {
    Tensor logits;   // [r, n]
    Tensor targets;  // [r]
    std::int64_t first;
    Tensor sums;  // [3, r] in the accumulator type
  };
  virtual void chunk_sums(const ChunkSums& args) const = 0;
  // The second does what chunk() does, with the sums of all processes.
  struct ChunkRest {
    Chunk chunk;  // of [r, n]
    std::int64_t first;
    Tensor sums;  // [P, 3, r]
  };
  virtual void chunk_rest(const ChunkRest& args) const = 0;
  // loss = scale * sum of weights * nll, summed in fp64 in a fixed order.
  virtual void loss(const Tensor& nll, const Tensor& weights, double scale,
                    const Tensor& loss) const = 0;

 protected:
  ~CrossEntropyKernels() = default;
};

const CrossEntropyKernels& cuda_cross_entropy();

}  // namespace infini
