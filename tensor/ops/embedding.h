// Rows of a table by token id:  y[r, :] = table[tokens[r], :].
#pragma once

#include "tensor/tensor_group.h"

namespace infini {

// tokens [R] int32 in [0, N), table [N, D] -> [R, D]. Throws on an id outside the table. Of a table
// that a group divides, each process has [N / P, D], and y is summed over the group.
Tensor embedding(const Tensor& tokens, const Tensor& table, const TensorGroup* group = nullptr);

// What a device provides: embedding.cpp for the CPU, embedding.cu for CUDA. Tables hold the rows of
// the ids from `first` on.
class EmbeddingKernels {
 public:
  // Rows of ids that the table does not hold are zeros.
  virtual void embedding(const Tensor& tokens, std::int64_t first, const Tensor& table,
                         const Tensor& y) const = 0;
  // dtable [N, D] += dy [R, D]; rows of one token are added in the order of the tokens.
  // `vocabulary` bounds the ids.
  virtual void embedding_grad(const Tensor& tokens, std::int64_t first, std::int64_t vocabulary,
                              const Tensor& dy, const Tensor& dtable) const = 0;

 protected:
  ~EmbeddingKernels() = default;
};

const EmbeddingKernels& cuda_embedding();

}  // namespace infini
