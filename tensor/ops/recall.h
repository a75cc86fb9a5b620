// Reading the compressive memory and mixing it with local attention (paper, section 2.1); memory.h
// says how it is written.
#pragma once

#include "tensor/ops/heads.h"
#include "tensor/tape.h"

namespace infini {

// sigmoid(gate) A_mem + (1 - sigmoid(gate)) local. The memory before each segment: matrix [B, S,
// Hk, K, K], normalizer [B, S, Hk, K]; gate [H]; local [R, H K] -> [R, H K]. While nothing was
// written A_mem is 0; with bypass_empty the gate is then taken as closed, so that local attention
// passes unscaled.
struct RecallOptions {
  double eps = 1e-6;
  bool bypass_empty = false;
};
// row_dots as in rotary_attention.h, of a local that nobody else reads, or empty.
Tensor memory_recall(const Tensor& qkv, const Tensor& matrix, const Tensor& normalizer,
                     const Tensor& gate, const Tensor& local, const HeadLayout& layout,
                     const RecallOptions& options, const Tensor& row_dots = {});

// What a device provides for this family: recall.cpp for the CPU, recall.cu for CUDA.
class RecallKernels {
 public:
  struct Recall {
    Tensor qkv, matrix, normalizer, gate, local;
    HeadLayout layout;
    RecallOptions options;
    Tensor y;
  };
  struct RecallGrad {
    Tensor qkv, matrix, normalizer, gate, local;
    HeadLayout layout;
    RecallOptions options;
    Tensor dy;
    GradTarget dqkv;  // its query columns
    GradTarget dmatrix, dnormalizer, dgate, dlocal;
    Tensor row_dots = {};  // [B, S, H, T]: where the sums over columns of dlocal local go, or empty
  };
  virtual void recall(const Recall& args) const = 0;
  virtual void recall_grad(const RecallGrad& args) const = 0;
  // Whether recall_grad can fill row_dots.
  virtual bool makes_row_dots(const RecallGrad&) const { return false; }

 protected:
  ~RecallKernels() = default;
};

const RecallKernels& cuda_recall();

}  // namespace infini
