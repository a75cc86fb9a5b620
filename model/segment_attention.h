// The registry of architectures: what each puts in the place of a block's attention. Another one is
// an entry of enum Architecture with what its configuration must satisfy (config.cpp), the parts
// that it carries from segment to segment (memory_state.h), and a class here or in memory_tokens.h.
// Here the memory is a layer's, and a class has
//   declare(config, prefix, specs)            its parameters
//   (config, parameters, prefix, positions, group)
//   operator()(pass, x, residual, span, memory) -> {y [R, D], memory after the span}
//   remember(pass, x, span, memory)           the memory alone
//   use_memory(on)
// One that takes rows of its own through the rest of the block is given that, block_rows.h, last.
// One that normalises over time is given the residual stream as x, and no residual.
//
// Segments of a span run at once, but for rows that a layer renews after each. Where the memory is
// the model's, memory_tokens.h takes the segments of a span one after the other, and blocks are
// infini's without a memory, each segment a span of its own. Either way two spans one after the
// other, the second with the memory that the first leaves, compute what one span does: that is all
// that schedules, evaluation, generation and checkpoints know of an architecture. A loss that
// trains parameters of its own alone is a root that it adds to the tape, see
// Pass::auxiliary_scale.
#pragma once

#include <variant>

#include "model/attention.h"
#include "model/compressive_attention.h"
#include "model/feedback_attention.h"
#include "model/megalodon_attention.h"
#include "model/memorizing_attention.h"
#include "model/xl_attention.h"

namespace infini {

using SegmentAttention = std::variant<InfiniAttention, XlAttention, MemorizingAttention,
                                      CompressiveAttention, FeedbackAttention, MegalodonAttention>;

// `layer`, counted from 0: an architecture may have blocks that differ.
void declare_attention(const ModelConfig& config, int layer, const std::string& prefix,
                       std::vector<ParameterSpec>& specs);
// What the blocks of a model share about positions: rotary angles, or sinusoids of distances.
Tensor position_table(const ModelConfig& config, DType compute, Device device);
SegmentAttention make_attention(const ModelConfig& config, int layer, const Parameters& parameters,
                                const std::string& prefix, const Tensor& positions,
                                const TensorGroup* group);

}  // namespace infini
