// Attention of queries over places, of which each batch row has marks. Query i of Q and place j of
// P, with keys and values from any tensors, turned or not:
//   y_i = sum_j p_ij v_j,   p_i = softmax_j(scale q_i . k_j)
// over the places j with seen[b, j] = 1 and, where the last Q places are the queries' own, j <= P -
// Q + i. A query that reads nothing has zeros.
#pragma once

#include "tensor/ops/heads.h"

namespace infini {

struct MarkedOptions {
  double scale = 1;
  bool own = false;  // the last Q places are those of the queries, read up to each query's own
};

// queries [B Q, H K]; keys and values [B P, Hk K]; seen [B, P] u8, 1: may be read. Of the layout, a
// batch row is one segment of Q tokens -> [B Q, H K].
Tensor marked_attention(const Tensor& queries, const Tensor& keys, const Tensor& values,
                        const Tensor& seen, const HeadLayout& layout, const MarkedOptions& options);

// What a device provides: marked_attention.cpp for the CPU, marked_attention.cu for CUDA.
class MarkedAttentionKernels {
 public:
  struct Attention {
    Tensor queries, keys, values, seen;
    HeadLayout layout;
    MarkedOptions options;

    std::int64_t places() const { return seen.shape()[1]; }
    std::int64_t key_width() const { return std::int64_t{layout.kv_heads} * layout.head_width; }
    // Places that query i may read if they are marked: the first so many.
    std::int64_t reach(std::int64_t i) const {
      return options.own ? places() - layout.tokens + i + 1 : places();
    }
  };
  struct AttentionGrad {
    Attention forward;
    Tensor dy;
    GradTarget dqueries, dkeys, dvalues;
  };
  virtual void attention(const Attention& args, const Tensor& y) const = 0;
  virtual void attention_grad(const AttentionGrad& args) const = 0;

 protected:
  ~MarkedAttentionKernels() = default;
};

const MarkedAttentionKernels& cuda_marked_attention();

}  // namespace infini
