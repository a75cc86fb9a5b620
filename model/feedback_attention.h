// Attention of TransformerFAM (Hwang et al. 2024, sections 2 and 3): a segment reads itself, a
// window of the M tokens before it, and F vectors that the layer carries; after each segment these
// feedback vectors read the segment and themselves and go through the rest of the block, with its
// own weights, to become those of the next. With I_s the tokens of segment s and f_s the feedback
// after it, both normalised where attention takes them,
//   I_s:  queries I_s read   [M tokens before; f_{s-1}; I_s up to each]   + I_s,   feed-forward
//   f_s:  queries f_{s-1} read   [f_{s-1}; I_s]   + f_{s-1},   feed-forward
// Gradients go back through the feedback and, as in the paper and other than in transformer_xl,
// through the window, whose keys and values are those that the layer computed when it read the
// tokens; the horizon of the recurrence stops both.
//
// A document starts from F learned vectors at the level of embeddings, a prompt: they run through
// the blocks by themselves, reading each other, and what a block takes of them is its f_0. Its
// first f_1 has no residual. So the stream that blocks hand on has them after the tokens.
//
// Positions are rotary and count from the start of the window: a token of the window stands as far
// before the segment as it does in the text, f_{s-1} in the last F places before the segment, since
// it stands for what was there, and as queries in the last F places of the segment that they read.
// The paper moves the latter by random offsets while it trains; here they stay. Its window is whole
// blocks; here it is any number of tokens. Padding is read by neither.
#pragma once

#include "model/block_rows.h"
#include "model/memory_state.h"
#include "model/span.h"
#include "tensor/pass.h"
#include "tensor/tensor_group.h"

namespace infini {

class FeedbackAttention {
 public:
  // Parameters are named prefix + "query.weight" and so on; rotary_table has feedback_positions()
  // and a segment. The heads are not divided: `group` must be null.
  FeedbackAttention(const ModelConfig& config, const Parameters& parameters,
                    const std::string& prefix, const Tensor& rotary_table,
                    const TensorGroup* group = nullptr);
  static void declare(const ModelConfig& config, const std::string& prefix,
                      std::vector<ParameterSpec>& specs);

  struct Output {
    Tensor y;            // like x, residual added
    MemoryState memory;  // after the last segment
  };
  // x and residual [B (S T + F), D], each batch row's tokens and then the prompt; memory before the
  // first segment. Segments in groups are refused.
  Output operator()(const Pass& pass, const Tensor& x, const Tensor& residual, const Span& span,
                    const MemoryState& memory, const BlockRows& block) const;
  // The memory alone.
  MemoryState remember(const Pass& pass, const Tensor& x, const Tensor& residual, const Span& span,
                       const MemoryState& memory, const BlockRows& block) const;

  // Off: no segment reads the window or the feedback, for ablations; both are still kept.
  void use_memory(bool on) { use_memory_ = on; }

 private:
  struct Places;
  Output run(const Pass& pass, const Tensor& x, const Tensor& residual, const Span& span,
             const MemoryState& memory, const BlockRows& block, bool of_tokens) const;
  // What n rows [B, n, (H + 2 Hk) K] ask and offer, the first at this position.
  Places places(const Tensor& qkv, std::int64_t position) const;
  // The same of a window, which asks nothing.
  Places window_places(const Tensor& pairs) const;
  // queries [B, Q, H K] over all of these -> [B, Q, H K].
  Tensor attend(const Tensor& queries, const std::vector<Places>& read,
                const std::vector<Tensor>& seen, bool own) const;
  MemoryState given(const Span& span, const MemoryState& memory, const Tensor& x) const;

  std::string_view architecture_;
  HeadLayout heads_;  // of no rows
  std::int64_t window_, feedback_, base_;
  double scale_;
  bool use_memory_ = true;
  Tensor rotary_table_;
  Parameter qkv_, output_;
};

// Positions before a segment.
std::int64_t feedback_positions(const ModelConfig& config);

// x [B n, D] with the rows of learned [F, D] after those of each batch row: [B (n + F), D].
Tensor with_prompt(const Tensor& x, const Tensor& learned, std::int64_t batch);
// x [B (n + F), D] -> [B n, D].
Tensor without_prompt(const Tensor& x, std::int64_t prompt, std::int64_t batch);

}  // namespace infini
