// Rows of a table by token id:  y[r, :] = table[tokens[r], :].
#pragma once

#include "tensor/tape.h"

namespace infini {

// tokens [R] int32 in [0, N), table [N, D] -> [R, D]. Throws on an id outside the table.
Tensor embedding(const Tensor& tokens, const Tensor& table);

// What a device provides: embedding.cpp for the CPU, embedding.cu for CUDA.
class EmbeddingKernels {
 public:
  virtual void embedding(const Tensor& tokens, const Tensor& table, const Tensor& y) const = 0;
  // dtable [N, D] += dy [R, D]; rows of one token are added in the order of the tokens.
  virtual void embedding_grad(const Tensor& tokens, const Tensor& dy,
                              const Tensor& dtable) const = 0;

 protected:
  ~EmbeddingKernels() = default;
};

const EmbeddingKernels& cuda_embedding();

}  // namespace infini
