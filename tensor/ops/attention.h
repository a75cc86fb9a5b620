// Causal attention inside segments:  A_dot = softmax(scale Q K^T) V, token t of a segment reading
// tokens 0..t of the same segment (paper, equation 2 restricted to the segment). Scores live in a
// tile while they are used; backward computes them again from the log-sum-exp of each row (Dao et
// al. 2022).
#pragma once

#include "tensor/ops/heads.h"
#include "tensor/tape.h"

namespace infini {

// rotated [R, (H + Hk) K] from rotate(); the values are read from qkv [R, (H + 2 Hk) K] -> [R, H
// K].
Tensor local_attention(const Tensor& rotated, const Tensor& qkv, const HeadLayout& layout,
                       double scale);

// The newest tokens of a segment against all of it so far, for generation: rotated and qkv hold the
// first `layout.tokens` tokens of one segment (S = 1), of which those from first_query on are asked
// for -> [B (T - first_query), H K]. Not recorded.
Tensor window_attention(const Tensor& rotated, const Tensor& qkv, const HeadLayout& layout,
                        double scale, std::int64_t first_query);

// Where the gradients of queries and keys go when the op has turned them itself: turned back, to
// their columns of the gradient of qkv.
struct TurnBack {
  Tensor table;  // in the accumulator type, from rotary_table()
  std::int64_t first_position = 0;
  GradTarget dqueries, dkeys;
  // The gradients of memory_sums() of the same projection, both or neither, whose part in those of
  // keys and values is added before these are written.
  Tensor keep = {}, dmatrix = {}, dnormalizer = {};
};

// What a device provides: attention.cpp for the CPU, attention.cu for CUDA.
class AttentionKernels {
 public:
  struct Attention {
    Tensor rotated, qkv;
    HeadLayout layout;
    double scale;
    std::int64_t first_query;  // rows before it in each segment are not asked for
    Tensor y;                  // [B, S, T - first_query, H K]
    Tensor log_sum;            // [B, S, H, T] in the accumulator type; may be empty
  };
  struct AttentionGrad {
    Tensor rotated, qkv;
    HeadLayout layout;
    double scale;
    Tensor y, log_sum, dy;
    Tensor row_dots =
        {};  // like log_sum: the sums over columns of dy y; empty where nobody has them
    GradTarget drotated = {};  // every column is written
    GradTarget dqkv = {};      // its value columns
  };
  virtual void attention(const Attention& args) const = 0;
  virtual void attention_grad(const AttentionGrad& args) const = 0;
  // The same with the gradients of queries and keys turned back, args.drotated not looked at.
  // False, with nothing done, where the device does not do this at once.
  virtual bool attention_grad(const AttentionGrad&, const TurnBack&) const { return false; }

 protected:
  ~AttentionKernels() = default;
};

// A forward pass, not recorded: what it took and made, which is what its backward pass reads.
struct Attended {
  Tensor rotated, qkv;
  HeadLayout layout;
  double scale;
  Tensor y;        // [R, H K]
  Tensor log_sum;  // [B, S, H, T] in the accumulator type

  // What the backward pass is asked, but for where its results go.
  AttentionKernels::AttentionGrad grad_of(const Tensor& dy) const;
};
Attended attend(const Tensor& rotated, const Tensor& qkv, const HeadLayout& layout, double scale);

const AttentionKernels& attention_kernels(Device device);
const AttentionKernels& cuda_attention();

}  // namespace infini
