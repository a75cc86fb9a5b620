// An Infini-Transformer in sizes: model/transformer.h, op by op.
#pragma once

#include "trainer/plan_lender.h"
#include "trainer/plan_scans.h"

namespace infini {

using SizedMemories = std::vector<SizedState>;  // one per layer, or that of the model

class PlannedModel {
 public:
  // `model` is what one rank has of it: its heads, feed-forward columns and vocabulary. `groups` as
  // PlannedMemory takes it. `lender` null: the rank keeps all parameters.
  PlannedModel(const PlannedOps& ops, const ModelConfig& model, int groups, PlannedLender* lender)
      : ops_(ops), model_(model), memory_(ops, model.memory, groups), lender_(lender) {}

  struct Output {
    Sized hidden;
    SizedMemories memory;
  };
  Output forward(SizeTape* tape, const HeadLayout& layout, const Sized& tokens,
                 const SizedMemories& memory, bool recompute_blocks) const;
  SizedMemories remember(const HeadLayout& layout, const Sized& tokens,
                         const SizedMemories& memory) const;
  PlannedOps::Loss loss(SizeTape* tape, const Sized& hidden, std::int64_t rows) const;

  const PlannedOps& ops() const { return ops_; }
  const ModelConfig& config() const { return model_; }

 private:
  struct BlockOutput {
    Sized x;
    SizedState memory;
  };
  struct Streamed {
    Sized x;
    SizedMemories memory;
  };
  Streamed through_blocks(SizeTape* tape, const Sized& x, const HeadLayout& layout,
                          const SizedMemories& memory, bool recompute_blocks) const;
  // model/memory_tokens.h
  Output with_memory_tokens(SizeTape* tape, const Sized& x, const HeadLayout& layout,
                            const SizedState& memory, bool recompute_blocks) const;
  BlockOutput block(SizeTape* tape, int layer, const Sized& x, const HeadLayout& layout,
                    const SizedState& memory) const;
  BlockOutput recomputed_block(SizeTape* tape, int layer, const Sized& x, const HeadLayout& layout,
                               const SizedState& memory) const;
  Sized embed(SizeTape* tape, const HeadLayout& layout, const Sized& tokens) const;
  // What a block borrows while it runs, and its backward pass again.
  PlannedLender::Loan borrow_block(SizeTape* tape, int layer) const;
  Sized norm(SizeTape* tape, const Sized& x, std::int64_t rows) const;
  Sized project(SizeTape* tape, const Sized& x, const HeadLayout& layout) const;
  Sized feed_forward(SizeTape* tape, const Sized& x, const Sized& residual,
                     std::int64_t rows) const;

  const PlannedOps& ops_;
  const ModelConfig& model_;
  PlannedMemory memory_;
  PlannedLender* lender_;
  mutable std::weak_ptr<Trace::Block> table_gradients_;  // of the embedding
};

}  // namespace infini
