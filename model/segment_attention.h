// The registry of architectures: what each puts in the place of a block's attention. Another one is
// an entry of enum Architecture with what its configuration must satisfy (config.h), the parts that
// it carries from segment to segment (memory_state.h), and a class here, with
//   declare(config, prefix, specs)            its parameters, query.weight first
//   (config, parameters, prefix, positions, group)
//   operator()(pass, x, residual, span, memory) -> {y [R, D], memory after the span}
//   remember(pass, x, span, memory)           the memory alone
//   use_memory(on)
// All segments of a span run at once. Two spans one after the other, the second with the memory
// that the first leaves, compute what one span does: that is all that schedules, evaluation,
// generation and checkpoints know of an architecture. A loss that trains parameters of its own
// alone is a root that it adds to the tape, see Pass::auxiliary_scale.
#pragma once

#include <variant>

#include "model/attention.h"
#include "model/compressive_attention.h"
#include "model/memorizing_attention.h"
#include "model/xl_attention.h"

namespace infini {

using SegmentAttention =
    std::variant<InfiniAttention, XlAttention, MemorizingAttention, CompressiveAttention>;

// `layer`, counted from 0: an architecture may have blocks that differ.
void declare_attention(const ModelConfig& config, int layer, const std::string& prefix,
                       std::vector<ParameterSpec>& specs);
// What the blocks of a model share about positions: rotary angles, or sinusoids of distances.
Tensor position_table(const ModelConfig& config, DType compute, Device device);
SegmentAttention make_attention(const ModelConfig& config, int layer, const Parameters& parameters,
                                const std::string& prefix, const Tensor& positions,
                                const TensorGroup* group);

}  // namespace infini
