// Root-mean-square normalisation of every query and key head of a packed projection (Dehghani et
// al. 2023; Qwen3), with one weight for all query heads and one for all key heads; values pass:
//   y = x * inv_rms * weight,   inv_rms = 1 / sqrt(mean over the head's K numbers of x^2 + eps)
#pragma once

#include "tensor/ops/heads.h"
#include "tensor/tensor_group.h"

namespace infini {

// qkv [R, (H + 2 Hk) K], weights [K] in fp32 (fp64 where qkv is) -> the same shape. `group`: those
// with the other heads, over which the weights' gradients are summed; null: there are none.
Tensor head_norm(const Tensor& qkv, const Tensor& query_weight, const Tensor& key_weight,
                 const HeadLayout& layout, double eps, const TensorGroup* group = nullptr);

// What a device provides: head_norm.cpp for the CPU, head_norm.cu for CUDA.
class HeadNormKernels {
 public:
  struct HeadNorm {
    Tensor qkv, query_weight, key_weight;
    HeadLayout layout;
    double eps;
    Tensor y;
    Tensor inv_rms;  // [R, H + Hk] in the accumulator type
  };
  struct HeadNormGrad {
    Tensor qkv, query_weight, key_weight, inv_rms;
    HeadLayout layout;
    Tensor dy;
    GradTarget dqkv, dquery_weight, dkey_weight;
  };
  virtual void head_norm(const HeadNorm& args) const = 0;
  virtual void head_norm_grad(const HeadNormGrad& args) const = 0;

 protected:
  ~HeadNormKernels() = default;
};

const HeadNormKernels& cuda_head_norm();

}  // namespace infini
