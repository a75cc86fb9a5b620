#include "model/attention.h"

#include "model/attention_parameters.h"
#include "tensor/ops/bias.h"
#include "tensor/ops/head_norm.h"
#include "tensor/ops/product.h"
#include "tensor/ops/rotary.h"
#include "tensor/ops/rotary_attention.h"
#include "tensor/ops/scan.h"

namespace infini {

void InfiniAttention::declare(const ModelConfig& config, const std::string& prefix,
                              std::vector<ParameterSpec>& specs) {
  declare_projections(config, prefix, specs);
  const std::int64_t width = config.head_width();
  const auto bias = [&](const char* name, int heads) {
    specs.push_back({.name = prefix + name,
                     .shape = {heads * width},
                     .full_precision = true,
                     .division = {.axis = 0}});
  };
  if (config.projection_biases) {
    bias("query.bias", config.heads);
    bias("key.bias", config.key_value_heads());
    bias("value.bias", config.key_value_heads());
  }
  if (config.head_norms)
    for (const char* name : {"query_norm.weight", "key_norm.weight"})
      specs.push_back({.name = prefix + name, .shape = {width}, .mean = 1, .full_precision = true});
  if (config.memory != MemoryRule::kNone)
    specs.push_back({.name = prefix + "gate",
                     .shape = {config.heads},
                     .deviation = config.gate_deviation,
                     .mean = config.gate_mean,
                     .full_precision = true,
                     .division = {.axis = 0}});
}

InfiniAttention::InfiniAttention(const ModelConfig& config, const Parameters& parameters,
                                 const std::string& prefix, const Tensor& rotary_table,
                                 const TensorGroup* group)
    : rule_(config.memory),
      scale_(attention_scale(config)),
      eps_(config.memory_eps),
      recall_{.eps = config.memory_eps,
              .bypass_empty = config.first_segment == FirstSegment::kBypass},
      rotary_table_(rotary_table),
      group_(group),
      norm_eps_(config.norm_eps),
      qkv_(parameters.joined(
          {prefix + "query.weight", prefix + "key.weight", prefix + "value.weight"})),
      output_(parameters[prefix + "output.weight"]) {
  if (rule_ != MemoryRule::kNone) gate_ = parameters[prefix + "gate"];
  const ModelConfig share = config.share(group ? group->count() : 1);
  heads_ = {.heads = share.heads, .kv_heads = share.kv_heads, .head_width = share.head_width()};
  if (config.projection_biases)
    biases_ =
        parameters.joined({prefix + "query.bias", prefix + "key.bias", prefix + "value.bias"});
  if (!config.head_norms) return;
  query_norm_ = parameters[prefix + "query_norm.weight"];
  key_norm_ = parameters[prefix + "key_norm.weight"];
}

InfiniAttention::Output InfiniAttention::operator()(const Pass& pass, const Tensor& x,
                                                    const Tensor& residual, const Span& span,
                                                    const MemoryState& memory) const {
  const Tensor qkv = project(pass, x);
  if (rule_ == MemoryRule::kNone)
    return {.y = output(pass, rotary_attention(qkv, rotary_table_, span.layout, scale_), residual),
            .memory = {}};
  const AttentionAndSums local =
      rotary_attention_and_sums(qkv, rotary_table_, span.keep, span.layout, scale_);
  const History history = accumulate(qkv, local.sums, span, memory);
  const Tensor mixed = mix(pass, qkv, history.before, local.y, span.layout, local.row_dots);
  return {.y = output(pass, mixed, residual), .memory = history.after};
}

Tensor InfiniAttention::project(const Pass& pass, const Tensor& x) const {
  return finished(pass,
                  linear(x, pass(qkv_), {}, {.group = group_, .by = WeightSplit::By::kOutputs}));
}

Tensor InfiniAttention::finished(const Pass& pass, Tensor qkv) const {
  if (biases_) qkv = add_bias(qkv, pass(*biases_));
  if (!query_norm_) return qkv;
  HeadLayout layout = heads_;
  layout.tokens = qkv.shape()[0];
  return head_norm(qkv, pass(*query_norm_), pass(*key_norm_), layout, norm_eps_, group_);
}

Tensor InfiniAttention::rotated(const Tensor& qkv, const HeadLayout& layout,
                                std::int64_t first_position) const {
  return rotate(qkv, rotary_table_, layout, first_position);
}

InfiniAttention::History InfiniAttention::remember(const Tensor& qkv, const Span& span,
                                                   const MemoryState& memory) const {
  if (rule_ == MemoryRule::kNone) return {};
  return accumulate(qkv, memory_sums(qkv, span.keep, span.layout), span, memory);
}

InfiniAttention::History InfiniAttention::accumulate(const Tensor& qkv, const MemorySums& sums,
                                                     const Span& span,
                                                     const MemoryState& memory) const {
  const bool linear = rule_ == MemoryRule::kLinear;
  const auto overlap = [&](const Tensor& normalizer) {
    return memory_overlap(qkv, span.keep, normalizer, span.layout, eps_);
  };
  MemoryScans scans;
  if (span.groups) {
    scans = linear ? accumulate_in_groups(*span.groups, span.borders, sums.matrix, sums.normalizer,
                                          memory.matrix, memory.normalizer)
                   : affine_in_groups(*span.groups, span.borders, sums.matrix, sums.normalizer,
                                      memory.matrix, memory.normalizer, overlap);
  } else {
    scans.normalizer = scan(sums.normalizer, memory.normalizer, span.borders);
    scans.matrix = linear ? scan(sums.matrix, memory.matrix, span.borders)
                          : affine_scan(overlap(scans.normalizer.before), sums.matrix,
                                        memory.matrix, span.borders);
  }
  return {.before = {.matrix = scans.matrix.before, .normalizer = scans.normalizer.before},
          .after = {.matrix = scans.matrix.after, .normalizer = scans.normalizer.after}};
}

Tensor InfiniAttention::mix(const Pass& pass, const Tensor& qkv, const MemoryState& before,
                            const Tensor& local, const HeadLayout& layout,
                            const Tensor& row_dots) const {
  if (rule_ == MemoryRule::kNone || !use_memory_) return local;
  return memory_recall(qkv, before.matrix, before.normalizer, pass(gate_), local, layout, recall_,
                       row_dots);
}

Tensor InfiniAttention::output(const Pass& pass, const Tensor& mixed,
                               const Tensor& residual) const {
  return linear(mixed, pass(output_), residual, {.group = group_, .by = WeightSplit::By::kInputs});
}

}  // namespace infini
