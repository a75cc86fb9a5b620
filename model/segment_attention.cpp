#include "model/segment_attention.h"

#include "tensor/ops/rotary.h"
#include "tensor/ops/sinusoids.h"

namespace infini {

void declare_attention(const ModelConfig& config, int layer, const std::string& prefix,
                       std::vector<ParameterSpec>& specs) {
  switch (config.architecture) {
    case Architecture::kInfini:
    case Architecture::kRmt:
    case Architecture::kAutoCompressor:
      return InfiniAttention::declare(config, prefix, specs);
    case Architecture::kTransformerXl:
      return XlAttention::declare(config, prefix, specs);
    case Architecture::kMemorizingTransformer:
      return config.retrieves(layer) ? MemorizingAttention::declare(config, prefix, specs)
                                     : XlAttention::declare(config, prefix, specs);
    case Architecture::kCompressiveTransformer:
      return CompressiveAttention::declare(config, prefix, specs);
    case Architecture::kTransformerFam:
      return FeedbackAttention::declare(config, prefix, specs);
    case Architecture::kMegalodon:
      return MegalodonAttention::declare(config, prefix, specs);
  }
}

Tensor position_table(const ModelConfig& config, DType compute, Device device) {
  if (config.has_relative_positions())
    return sinusoid_table(config.context_tokens() + config.segment_tokens, config.d_model,
                          config.rope_base, compute, device);
  const std::int64_t before = feedback_positions(config);
  return rotary_table(before + config.positions(config.segment_tokens), config.head_width(),
                      config.rope_base, accumulator_of(compute), device,
                      config.rope_scaling.scaling());
}

SegmentAttention make_attention(const ModelConfig& config, int layer, const Parameters& parameters,
                                const std::string& prefix, const Tensor& positions,
                                const TensorGroup* group) {
  if (config.architecture == Architecture::kTransformerFam)
    return FeedbackAttention(config, parameters, prefix, positions, group);
  if (config.architecture == Architecture::kMegalodon)
    return MegalodonAttention(config, parameters, prefix, positions, group);
  if (!config.has_relative_positions())
    return InfiniAttention(config, parameters, prefix, positions, group);
  if (config.architecture == Architecture::kCompressiveTransformer)
    return CompressiveAttention(config, parameters, prefix, positions, group);
  if (config.retrieves(layer))
    return MemorizingAttention(config, parameters, prefix, positions, group);
  return XlAttention(config, parameters, prefix, positions, group);
}

}  // namespace infini
