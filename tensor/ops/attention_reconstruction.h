// How much of what attention reads a compression keeps (Rae et al. 2020, section 3.2): the queries
// of a segment read tokens, and then what the tokens were compressed to, by content alone:
//   A(q, m)_i = sum_j p_ij v_j,   p_i = softmax_j(scale q_i . k_j)
//   loss = weight sum_{r, c} (A(q, compressed) - A(q, tokens))^2
// Every query reads all places that are seen; where none is, A = 0.
#pragma once

#include "tensor/ops/heads.h"

namespace infini {

// Keys and values of places that each segment has for itself.
struct SegmentPairs {
  Tensor rows;  // [B S M, 2 Hk K], keys, then values
  Tensor seen;  // [B, S, M] u8, 1: may be read
};

// qkv [R, (H + 2 Hk) K], its queries alone -> the loss, a scalar in the accumulator type. The paper
// stops every gradient but that of the compression: here it goes to compressed.rows and nowhere
// else. It is computed with the loss, which must be a root of the backward pass.
Tensor attention_reconstruction(const Tensor& qkv, const SegmentPairs& tokens,
                                const SegmentPairs& compressed, const HeadLayout& layout,
                                double scale, double weight);

// What a device provides: attention_reconstruction.cpp for the CPU, attention_reconstruction.cu for
// CUDA.
class AttentionReconstructionKernels {
 public:
  struct Attention {
    Tensor qkv;
    SegmentPairs pairs;
    HeadLayout layout;
    double scale;
    std::int64_t places;  // M
  };
  // y = factor (A - minus), or factor A without it: [R, H K] in the accumulator type.
  virtual void attention(const Attention& args, const Tensor& minus, double factor,
                         const Tensor& y) const = 0;
  // drows, in the type of rows, from the gradient of A, which is factor dy.
  virtual void attention_grad(const Attention& args, const Tensor& dy, double factor,
                              const Tensor& drows) const = 0;

 protected:
  ~AttentionReconstructionKernels() = default;
};

const AttentionReconstructionKernels& cuda_attention_reconstruction();

}  // namespace infini
