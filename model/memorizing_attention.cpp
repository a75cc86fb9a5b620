#include "model/memorizing_attention.h"

namespace infini {

void MemorizingAttention::declare(const ModelConfig& config, const std::string& prefix,
                                  std::vector<ParameterSpec>& specs) {
  XlAttention::declare(config, prefix, specs);
  specs.push_back({.name = prefix + "retrieval_scale",
                   .shape = {config.heads},
                   .mean = 1,
                   .full_precision = true});
  specs.push_back({.name = prefix + "gate",
                   .shape = {config.heads},
                   .deviation = config.gate_deviation,
                   .mean = config.gate_mean,
                   .full_precision = true});
}

MemorizingAttention::MemorizingAttention(const ModelConfig& config, const Parameters& parameters,
                                         const std::string& prefix, const Tensor& sinusoids,
                                         const TensorGroup* group)
    : local_(config, parameters, prefix, sinusoids, group),
      architecture_(config.architecture_name()),
      retrieval_tokens_(config.searched_tokens()),
      options_{.neighbours = config.neighbours,
               .bypass_empty = config.first_segment == FirstSegment::kBypass},
      scale_(parameters[prefix + "retrieval_scale"]),
      gate_(parameters[prefix + "gate"]) {}

MemorizingAttention::Output MemorizingAttention::operator()(const Pass& pass, const Tensor& x,
                                                            const Tensor& residual,
                                                            const Span& span,
                                                            const MemoryState& memory) const {
  XlAttention::Attended local = local_.attend(pass, x, span, memory);
  const NewestTokens pairs = newest_pairs(local.qkv, span, memory);
  if (use_memory_)
    local.y = retrieval_attention(local.qkv, pairs.context, pairs.seen, pass(scale_), pass(gate_),
                                  local.y, span.layout, options_);
  local.memory.pairs = pairs.rows;
  local.memory.pairs_present = pairs.present;
  return {.y = local_.output(pass, local.y, residual), .memory = local.memory};
}

MemoryState MemorizingAttention::remember(const Pass& pass, const Tensor& x, const Span& span,
                                          const MemoryState& memory) const {
  MemoryState after = local_.remember(pass, x, span, memory);
  const NewestTokens pairs = newest_pairs(local_.project(pass, x), span, memory);
  after.pairs = pairs.rows;
  after.pairs_present = pairs.present;
  return after;
}

void MemorizingAttention::use_memory(bool on) {
  use_memory_ = on;
  local_.use_memory(on);
}

NewestTokens MemorizingAttention::newest_pairs(const Tensor& qkv, const Span& span,
                                               const MemoryState& memory) const {
  return newest_tokens(architecture_, memory_pairs(qkv, span.layout), span, memory.pairs,
                       memory.pairs_present, retrieval_tokens_);
}

}  // namespace infini
