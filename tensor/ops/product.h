// The products of a model: activations by weights.
//   y[r, o] = sum_c x[r, c] * weight[o, c]
// and in the backward pass  dx = dy weight,  dweight += dy^T x  (added in fp32 inside the product).
#pragma once

#include "tensor/tape.h"

namespace infini {

// x [..., C], weight [O, C] -> y [..., O]; same type.
Tensor linear(const Tensor& x, const Tensor& weight);

// One product on a device: C = op(A) op(B), or C += op(A) op(B). Rank-2 tensors or views; op
// transposes. A and B share a type; C is of that type or its accumulator.
struct Product {
  Tensor a, b, c;
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;
};
void multiply(const Product& product);

// What a device provides: product.cpp for the CPU (oneDNN for fp32 and bf16, gemm.h else),
// product.cu for CUDA.
class ProductKernels {
 public:
  virtual void multiply(const Product& product) const = 0;

 protected:
  ~ProductKernels() = default;
};

const ProductKernels& cuda_product();

}  // namespace infini
