// The products of a model: activations by weights.
//   y[r, o] = sum_c x[r, c] * weight[o, c] + residual[r, o]
// and in the backward pass  dx = dy weight,  dweight += dy^T x  (added in fp32 inside the product).
#pragma once

#include "tensor/tensor_group.h"

namespace infini {

// How the processes of a group divide the weight of a product.
struct WeightSplit {
  const TensorGroup* group = nullptr;  // null: this process has all of it
  enum class By {
    kOutputs,  // rows of the weight: each computes its outputs, and dx is summed over the group
    kInputs    // its columns: y is summed over the group
  } by = By::kOutputs;

  const TensorGroup* sums_y() const { return by == By::kInputs ? group : nullptr; }
  const TensorGroup* sums_dx() const { return by == By::kOutputs ? group : nullptr; }
};

// x [..., C], weight [O, C], residual like y or empty -> y [..., O]; same type. The residual is
// added before y is rounded; of a sum over a group, to what the group has added up.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& residual = {},
              const WeightSplit& split = {});

// y = the sum over the group of what each process has there + residual, which may be empty.
void finish_sum(const TensorGroup& group, const Tensor& y, const Tensor& residual);

// One product on a device: C = op(A) op(B), C += op(A) op(B), or C = op(A) op(B) + addend. Rank-2
// tensors or views; op transposes. A and B share a type; C is of that type or its accumulator.
// Rank-3 tensors are batches of matrices, of which each is multiplied with the one of its number.
struct Product {
  Tensor a, b, c;
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;
  Tensor addend = {};  // like C
};
void multiply(const Product& product);

// Whether products of fp32 on a GPU may round their factors to tf32 (10 bits of fraction), several
// times faster. Off unless asked for.
void allow_tf32(bool allowed);
bool tf32_allowed();

// C [m, n] from op(A) [m, k] and op(B) [k, n], `batch` times; throws when the matrices do not fit
// together.
struct ProductExtents {
  std::int64_t m, n, k, batch;
};
ProductExtents extents_of(const Product& product);

// What a device provides, but for addends where the activation rides on: product.cpp for the CPU
// (oneDNN for fp32 and bf16, gemm.h else), product_cublaslt.cpp for CUDA. Only multiply() takes
// batches.
class ProductKernels {
 public:
  virtual void multiply(const Product& product) const = 0;
  // C = gelu(op(A) op(B)); `kept`, like C, receives what the gradient needs, in a form of the
  // device's own. Empty where there will be none.
  virtual void multiply_gelu(const Product& product, const Tensor& kept) const = 0;
  // C = (op(A) op(B)) * gelu'(what was kept).
  virtual void multiply_gelu_grad(const Product& product, const Tensor& kept) const = 0;

 protected:
  ~ProductKernels() = default;
};

const ProductKernels& cuda_product();
const ProductKernels& product_kernels(Device device);

}  // namespace infini
