#include "model/segment_attention.h"

#include "tensor/ops/rotary.h"
#include "tensor/ops/sinusoids.h"

namespace infini {

void declare_attention(const ModelConfig& config, const std::string& prefix,
                       std::vector<ParameterSpec>& specs) {
  switch (config.architecture) {
    case Architecture::kInfini:
    case Architecture::kRmt:
    case Architecture::kAutoCompressor:
      return InfiniAttention::declare(config, prefix, specs);
    case Architecture::kTransformerXl:
      return XlAttention::declare(config, prefix, specs);
  }
}

Tensor position_table(const ModelConfig& config, DType compute, Device device) {
  if (config.architecture == Architecture::kTransformerXl)
    return sinusoid_table(config.cached_tokens() + config.segment_tokens, config.d_model,
                          config.rope_base, compute, device);
  return rotary_table(config.positions(config.segment_tokens), config.head_width(),
                      config.rope_base, accumulator_of(compute), device);
}

SegmentAttention make_attention(const ModelConfig& config, const Parameters& parameters,
                                const std::string& prefix, const Tensor& positions,
                                const TensorGroup* group) {
  if (config.architecture == Architecture::kTransformerXl)
    return XlAttention(config, parameters, prefix, positions, group);
  return InfiniAttention(config, parameters, prefix, positions, group);
}

}  // namespace infini
