#include "model/xl_attention.h"

#include "model/attention_parameters.h"
#include "tensor/ops/product.h"

namespace infini {

void XlAttention::declare(const ModelConfig& config, const std::string& prefix,
                          std::vector<ParameterSpec>& specs) {
  declare_projections(config, prefix, specs);
  const std::int64_t keys = std::int64_t{config.key_value_heads()} * config.head_width();
  specs.push_back({.name = prefix + "position.weight",
                   .shape = {keys, config.d_model},
                   .deviation = start_deviation(config, config.d_model)});
  for (const char* name : {"content_bias", "position_bias"})
    specs.push_back({.name = prefix + name,
                     .shape = {config.heads, config.head_width()},
                     .deviation = start_deviation(config, config.d_model),
                     .full_precision = true});
}

XlAttention::XlAttention(const ModelConfig& config, const Parameters& parameters,
                         const std::string& prefix, const Tensor& sinusoids,
                         const TensorGroup* group)
    : architecture_(config.architecture_name()),
      cache_tokens_(config.cached_tokens()),
      scale_(attention_scale(config)),
      sinusoids_(sinusoids),
      qkv_(parameters.joined(
          {prefix + "query.weight", prefix + "key.weight", prefix + "value.weight"})),
      key_value_(parameters.joined({prefix + "key.weight", prefix + "value.weight"})),
      position_(parameters[prefix + "position.weight"]),
      content_bias_(parameters[prefix + "content_bias"]),
      position_bias_(parameters[prefix + "position_bias"]),
      output_(parameters[prefix + "output.weight"]) {
  check(!group, architecture_, ": ranks cannot share its blocks");
}

XlAttention::Output XlAttention::operator()(const Pass& pass, const Tensor& x,
                                            const Tensor& residual, const Span& span,
                                            const MemoryState& memory) const {
  const Attended heads = attend(pass, x, span, memory);
  return {.y = output(pass, heads.y, residual), .memory = heads.memory};
}

XlAttention::Attended XlAttention::attend(const Pass& pass, const Tensor& x, const Span& span,
                                          const MemoryState& memory) const {
  const NewestTokens cache = this->cache(x, span, memory);
  const Tensor qkv = project(pass, x);
  const Tensor y = read(pass, qkv, cache.context, cache.seen, span.layout);
  return {.qkv = qkv, .y = y, .memory = {.cached = cache.rows, .present = cache.present}};
}

Tensor XlAttention::read(const Pass& pass, const Tensor& qkv, const Tensor& context,
                         const Tensor& seen, const HeadLayout& layout) const {
  const Tensor cached = linear(context, pass(key_value_));
  const Tensor distances = sinusoids_.slice(0, seen.shape()[2] + layout.tokens);
  return relative_attention(qkv, cached, use_memory_ ? seen : Tensor::zeros_like(seen),
                            {.keys = linear(distances, pass(position_)),
                             .content_bias = pass(content_bias_),
                             .position_bias = pass(position_bias_)},
                            layout, scale_);
}

Tensor XlAttention::constant_pairs(const Pass& pass, const Tensor& rows) const {
  return linear(rows, pass(key_value_).unwatched());
}

Tensor XlAttention::project(const Pass& pass, const Tensor& x) const {
  return linear(x, pass(qkv_));
}

Tensor XlAttention::output(const Pass& pass, const Tensor& heads, const Tensor& residual) const {
  return linear(heads, pass(output_), residual);
}

MemoryState XlAttention::remember(const Pass&, const Tensor& x, const Span& span,
                                  const MemoryState& memory) const {
  const NewestTokens newest = cache(x, span, memory);
  return {.cached = newest.rows, .present = newest.present};
}

NewestTokens XlAttention::cache(const Tensor& x, const Span& span,
                                const MemoryState& memory) const {
  return newest_tokens(architecture_, x, span, memory.cached, memory.present, cache_tokens_);
}

}  // namespace infini
