// Attention over those keys of a long memory that a query is nearest to, and its mixture with local
// attention (Wu et al. 2022, Memorizing Transformers, sections 3.1 and 3.2). Query i of head h,
// with q^ = q / |q| and keys of length 1:
//   C_i = the n places seen with the largest q_i . k_j, the earlier place where two are equal
//   r_i = sum_{j in C_i} p_j v_j,   p = softmax_{j in C_i}(s_h q^_i . k_j)
//   y_i = g_h r_i + (1 - g_h) local_i,   g_h = sigmoid(gate_h)
// The search is exact. The memory is data: no gradient goes to it, or through the choice.
#pragma once

#include "tensor/ops/heads.h"

namespace infini {

// Added to the square of a length, so that zeros have one.
constexpr double kLengthEps = 1e-6;

// What a memory keeps of each token: its keys, each divided by its length, then its values. qkv [R,
// (H + 2 Hk) K] -> [R, 2 Hk K]. Not recorded.
Tensor memory_pairs(const Tensor& qkv, const HeadLayout& layout);

struct RetrievalOptions {
  int neighbours = 32;        // n, at least 1; on a GPU at most 256, in fp64 192
  bool bypass_empty = false;  // where a query sees nothing: y = local; else r = 0
};

// pairs [B (N + (S - 1) T), 2 Hk K], of which segment s of row b reads the N from s T on; seen from
// cache_seen() of N places; scale and gate [H] in the accumulator type; local [R, H K] -> [R, H K].
Tensor retrieval_attention(const Tensor& qkv, const Tensor& pairs, const Tensor& seen,
                           const Tensor& scale, const Tensor& gate, const Tensor& local,
                           const HeadLayout& layout, const RetrievalOptions& options);

// What a device provides: retrieval_attention.cpp for the CPU, retrieval_attention.cu for CUDA.
class RetrievalAttentionKernels {
 public:
  struct Retrieval {
    Tensor qkv, pairs, seen, scale, gate, local;
    HeadLayout layout;
    RetrievalOptions options;
    std::int64_t retrieval_tokens;  // N
    Tensor chosen;  // [R, H, n] int32, places of C_i, nearest first; -1 where none is

    // The first row of `pairs` that segment s of row b reads.
    std::int64_t first_pair(std::int64_t b, std::int64_t s) const {
      return b * (retrieval_tokens + (layout.segments - 1) * layout.tokens) + s * layout.tokens;
    }
  };
  struct RetrievalGrad {
    Retrieval forward;
    Tensor dy;
    GradTarget dqkv;  // queries alone
    GradTarget dscale, dgate, dlocal;
  };
  virtual void pairs(const Tensor& qkv, const HeadLayout& layout, const Tensor& pairs) const = 0;
  virtual void choose(const Retrieval& args) const = 0;  // fills `chosen`
  virtual void mix(const Retrieval& args, const Tensor& y) const = 0;
  virtual void mix_grad(const RetrievalGrad& args) const = 0;

 protected:
  ~RetrievalAttentionKernels() = default;
};

const RetrievalAttentionKernels& cuda_retrieval_attention();

}  // namespace infini
