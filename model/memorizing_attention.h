// Attention of a Memorizing Transformer's one layer with a long memory (Wu et al. 2022): besides
// what attention of Transformer-XL reads, a query reads the few of the newest N tokens' keys that
// it is nearest to, and a gate for each head mixes the two, see retrieval_attention.h. The memory
// holds keys and values as the layer computed them when their tokens were read, keys divided by
// their length so that those of older parameters are no larger; no gradient goes back through it.
// The other layers are Transformer-XL's. Paper: local attention takes queries and keys divided by
// their length as well; here it is that of the other layers, so that with the gate closed a model
// is Transformer-XL.
#pragma once

#include "model/xl_attention.h"
#include "tensor/ops/retrieval_attention.h"

namespace infini {

class MemorizingAttention {
 public:
  // As XlAttention, whose parameters it has, and retrieval_scale and gate.
  MemorizingAttention(const ModelConfig& config, const Parameters& parameters,
                      const std::string& prefix, const Tensor& sinusoids,
                      const TensorGroup* group = nullptr);
  static void declare(const ModelConfig& config, const std::string& prefix,
                      std::vector<ParameterSpec>& specs);

  // As those of XlAttention. The memory in `memory` may be of any length as well, of which the
  // newest N tokens count.
  using Output = XlAttention::Output;
  Output operator()(const Pass& pass, const Tensor& x, const Tensor& residual, const Span& span,
                    const MemoryState& memory) const;
  MemoryState remember(const Pass& pass, const Tensor& x, const Span& span,
                       const MemoryState& memory) const;

  // Off: neither cache nor memory is read and the gate acts as closed; both are still kept.
  void use_memory(bool on);

 private:
  NewestTokens newest_pairs(const Tensor& qkv, const Span& span, const MemoryState& memory) const;

  XlAttention local_;
  std::string_view architecture_;
  std::int64_t retrieval_tokens_;
  RetrievalOptions options_;
  bool use_memory_ = true;
  Parameter scale_, gate_;
};

}  // namespace infini
