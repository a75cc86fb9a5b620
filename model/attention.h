// Infini-attention: causal local attention inside each segment and a read of the compressive
// memory, mixed by one learned gate a head, with the same queries, keys and values for both (paper,
// section 2.1). All segments of a span run at once.
#pragma once

#include <optional>

#include "model/config.h"
#include "model/memory_state.h"
#include "model/span.h"
#include "tensor/ops/memory.h"
#include "tensor/ops/recall.h"
#include "tensor/pass.h"
#include "tensor/tensor_group.h"

namespace infini {

class InfiniAttention {
 public:
  // Parameters are named prefix + "query.weight" and so on.
  // `group`: those with the other heads; null: there are none.
  InfiniAttention(const ModelConfig& config, const Parameters& parameters,
                  const std::string& prefix, const Tensor& rotary_table,
                  const TensorGroup* group = nullptr);
  static void declare(const ModelConfig& config, const std::string& prefix,
                      std::vector<ParameterSpec>& specs);

  struct Output {
    Tensor y;            // [R, D], residual added
    MemoryState memory;  // after the last segment
  };
  // x and residual [R, D]; memory before the first segment.
  Output operator()(const Pass& pass, const Tensor& x, const Tensor& residual, const Span& span,
                    const MemoryState& memory) const;

  // The steps of the above, which generation takes one by one.
  Tensor project(const Pass& pass, const Tensor& x) const;  // [R, (H + 2 Hk) K]
  Tensor rotated(const Tensor& qkv, const HeadLayout& layout,
                 std::int64_t first_position = 0) const;
  struct History {
    MemoryState before;  // [B, S, ...] what each segment reads
    MemoryState after;   // [B, ...]
  };
  History remember(const Tensor& qkv, const Span& span, const MemoryState& memory) const;
  // The memory after the span alone, from x [R, D].
  MemoryState remember(const Pass& pass, const Tensor& x, const Span& span,
                       const MemoryState& memory) const {
    return remember(project(pass, x), span, memory).after;
  }
  // before [B, S, ...] -> [R, H K]; local itself without a memory or while it is switched off.
  // row_dots as in memory_recall().
  Tensor mix(const Pass& pass, const Tensor& qkv, const MemoryState& before, const Tensor& local,
             const HeadLayout& layout, const Tensor& row_dots = {}) const;
  Tensor output(const Pass& pass, const Tensor& mixed, const Tensor& residual) const;
  double scale() const { return scale_; }

  // Off: every gate acts as closed, for ablations; the memory is still written.
  void use_memory(bool on) { use_memory_ = on; }
  const Parameter& gate() const { return gate_; }

 private:
  // What the segments of a span, with these sums, read and leave.
  History accumulate(const Tensor& qkv, const MemorySums& sums, const Span& span,
                     const MemoryState& memory) const;

  // The projection's bias and its heads' norms, where the model has them.
  Tensor finished(const Pass& pass, Tensor qkv) const;

  MemoryRule rule_;
  double scale_, eps_;
  RecallOptions recall_;
  bool use_memory_ = true;
  Tensor rotary_table_;
  const TensorGroup* group_;
  HeadLayout heads_;  // but for its rows
  double norm_eps_;
  Parameter qkv_, output_, gate_;
  std::optional<Parameter> biases_, query_norm_, key_norm_;
};

}  // namespace infini
