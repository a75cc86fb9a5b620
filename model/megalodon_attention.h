// Attention of Megalodon (Ma et al. 2024, section 3). With x the residual stream, which this takes
// as it is, and a token's state that of its document so far,
//   x^ = timestep norm of x,   x' = complex averages of x^           timestep_norm.h and
//   z  = x' Wz + bz,   q, k from z / |z|,   v = silu(x^ Wv + bv)     complex_average.h;
//   o  = softmax(rope(q) rope(k)^T) v   inside the segment           shared_heads.h
//   y  = x + x' Wh + (silu(x' Wg + bg) o) Wo + bo
// A segment is the paper's chunk: nothing but averages and statistics goes on to the next, and all
// segments of a span run at once. Scores are not divided by sqrt(K); instead queries and keys start
// K^(1/4) long, so that those of a query and its own key are what they are elsewhere at first. The
// block adds its feed-forward part to x again, not to y (two hops of the residual, section 3.4).
// The published code normalises x' once more by the root of its mean square; the paper, and this,
// does not.
//
// Padding enters neither averages nor statistics; inside its segment later tokens read it, which at
// the end of a document are padding.
#pragma once

#include "model/memory_state.h"
#include "model/span.h"
#include "tensor/ops/complex_average.h"
#include "tensor/ops/shared_heads.h"
#include "tensor/ops/timestep_norm.h"
#include "tensor/pass.h"
#include "tensor/tensor_group.h"

namespace infini {

class MegalodonAttention {
 public:
  // Parameters are named prefix + "shared.weight" and so on. The heads are not divided: `group`
  // must be null.
  MegalodonAttention(const ModelConfig& config, const Parameters& parameters,
                     const std::string& prefix, const Tensor& rotary_table,
                     const TensorGroup* group = nullptr);
  static void declare(const ModelConfig& config, const std::string& prefix,
                      std::vector<ParameterSpec>& specs);

  struct Output {
    Tensor y;            // [R, D], residual added
    MemoryState memory;  // after the last segment
  };
  // x [R, D]; memory before the first segment. Segments in groups are refused.
  Output operator()(const Pass& pass, const Tensor& x, const Span& span,
                    const MemoryState& memory) const;
  // The memory alone.
  MemoryState remember(const Pass& pass, const Tensor& x, const Span& span,
                       const MemoryState& memory) const;

  // Off: every segment starts from nothing, like the first of a document, for ablations.
  void use_memory(bool on) { use_memory_ = on; }

 private:
  struct OverTime {
    TimestepNormed normed;  // x^
    Averaged averaged;      // x'

    MemoryState after() const;
  };
  OverTime over_time(const Pass& pass, const Tensor& x, const Span& span,
                     const MemoryState& memory) const;
  void check_memory(const MemoryState& memory, std::int64_t batch) const;

  std::string_view architecture_;
  int groups_;
  std::int64_t averages_;
  double eps_;
  bool use_memory_ = true;
  Tensor rotary_table_;
  Parameter shared_, value_, gate_, hidden_, output_;
  Parameter shared_bias_, query_scale_, query_shift_, key_scale_, key_shift_, value_bias_,
      gate_bias_, output_bias_;
  Parameter norm_weight_, norm_bias_;
  Parameter alpha_, delta_, frequency_, skip_, eta_;
};

}  // namespace infini
