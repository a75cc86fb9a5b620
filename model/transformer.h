// The Infini-Transformer: embedding, blocks of Infini-attention and feed-forward with RMSNorm
// before each (pre-norm), and the projection to the vocabulary. The systems it is compared to have
// another attention in the same place, or memory tokens around those of a segment.
#pragma once

#include "model/feed_forward.h"
#include "model/memory_tokens.h"
#include "model/norm.h"
#include "model/segment_attention.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/parameter_lender.h"

namespace infini {

struct Block {
  // `layer`, counted from 0, says which block it is.
  Block(const ModelConfig& config, int layer, const Parameters& parameters, const Tensor& positions,
        const TensorGroup* group);

  struct Output {
    Tensor x;  // the residual stream after the block
    MemoryState memory;
  };
  // x [R, D], the residual stream.
  Output operator()(const Pass& pass, const Tensor& x, const Span& span,
                    const MemoryState& memory) const;
  // The memory after the span alone.
  MemoryState remember(const Pass& pass, const Tensor& x, const Span& span,
                       const MemoryState& memory) const;
  BlockRows rows(const Pass& pass) const;
  // Throws where the architecture is another.
  const InfiniAttention& infini_attention() const { return std::get<InfiniAttention>(attention); }

  bool two_hops;        // the feed-forward part is added to x, not to what attention left
  Norm attention_norm;  // none where attention normalises over time
  Norm feed_forward_norm;
  SegmentAttention attention;
  FeedForward feed_forward;
};

class InfiniTransformer {
 public:
  // Of a model that a group shares, this process has config.share() alone; what goes in and comes
  // out is the same on all, and all make the same calls. The group must outlive the model. What is
  // frozen has no gradient.
  InfiniTransformer(const ModelConfig& config, DType compute, Device device,
                    const TensorGroup* group = nullptr, const Keeps& keeps = {},
                    const Frozen& frozen = {});

  struct Output {
    Tensor hidden;    // [R, D], normalised
    Memories memory;  // after the span
  };
  // Where not all elements of the parameters are kept: every part of the model borrows its own from
  // here while it runs. The lender must outlive what is run. Null: it does not.
  void borrow_from(ParameterLender* lender) { lender_ = lender; }
  bool borrows() const { return lender_ != nullptr; }

  // Memories before the span, as many as empty_memories() are. With recompute_blocks, backward
  // computes each block again; with pass.gradients_final, it says block by block from where on
  // gradients are final: the embedding's are when it returns.
  Output operator()(const Pass& pass, const Span& span, const Memories& memory,
                    bool recompute_blocks = false) const;

  // The memories after the span alone: what comes after the last layer's memory is left out, unless
  // the memory is the model's.
  Memories remember(const Pass& pass, const Span& span, const Memories& memory) const;

  // The pass as a block needs it, or parts of a block that are run by themselves.
  Pass with_block(const Pass& pass, std::size_t layer) const;

  // The parts around the blocks.
  Tensor embed(const Pass& pass, const Tensor& tokens) const;  // [R] -> [R, D]
  Tensor final_norm(const Pass& pass, const Tensor& x) const;  // -> hidden [R, D]
  Tensor logits(const Tensor& hidden) const;                   // [R, N]
  CrossEntropy loss(const Pass& pass, const Tensor& hidden, const Tensor& targets,
                    const Tensor& weights, double scale) const;

  const ModelConfig& config() const { return config_; }
  // What of it is here: heads, memories, feed-forward columns, token ids.
  const ModelConfig& share() const { return share_; }
  bool is_shared() const { return group_ != nullptr; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }
  const std::vector<Block>& blocks() const { return blocks_; }
  Device device() const { return device_; }
  // Off: every gate acts as closed, or as the architecture says, for ablations.
  void use_memory(bool on);

 private:
  void check_memories(const Memories& memory) const;
  // x [R, D] through every block, with a memory for each.
  struct Streamed {
    Tensor x;
    Memories memory;
  };
  Streamed through_blocks(const Pass& pass, const Tensor& x, const Span& span,
                          const Memories& memory, bool recompute_blocks) const;
  ElementRange block_range(std::size_t layer) const;  // empty where there is none
  // The pass without its tape where a block that takes this would record nothing.
  Pass recording(const Pass& pass, std::size_t layer, const Tensor& x,
                 const MemoryState& memory) const;
  Pass with_head(const Pass& pass) const;
  // The residual stream of a span before its first block, with the prompt where there is one.
  Tensor start(const Pass& pass, const Span& span) const;

  ModelConfig config_, share_;
  const TensorGroup* group_;
  Device device_;
  Parameters parameters_;
  std::optional<MemoryTokens> memory_tokens_;
  std::vector<Block> blocks_;
  std::vector<ElementRange> block_ranges_;
  ParameterLender* lender_ = nullptr;
  mutable std::weak_ptr<LentGradients> table_gradients_;  // of the embedding
  Parameter embedding_, head_;
  Norm final_norm_;
  std::optional<Parameter> prompt_;  // see feedback_attention.h
};

// Every parameter of a model, in the order of the flat buffers: embedding, memory tokens, block
// after block, final norm, head. Where `ranks` share the model, what the rank with this index has
// of each: norms whole, of all else a part.
std::vector<ParameterSpec> parameter_specs(const ModelConfig& config, int ranks = 1, int index = 0,
                                           const Frozen& frozen = {});
std::int64_t parameter_count(const ModelConfig& config);  // elements, on all ranks that share it

// Whether a parameter of this name is the gate of a block, all that a memory adds to what a block
// learns.
bool is_gate(std::string_view parameter);

}  // namespace infini
