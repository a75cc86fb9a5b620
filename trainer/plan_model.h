// An Infini-Transformer in sizes: model/transformer.h, op by op.
#pragma once

#include "tensor/parameters.h"
#include "trainer/plan_cache.h"
#include "trainer/plan_feedback.h"
#include "trainer/plan_lender.h"
#include "trainer/plan_over_time.h"
#include "trainer/plan_scans.h"

namespace infini {

using SizedMemories = std::vector<SizedState>;  // one per layer, or that of the model

class PlannedModel {
 public:
  // `model` is what one rank has of it: its heads, feed-forward columns and vocabulary. `groups` as
  // PlannedMemory takes it. `lender` null: the rank keeps all parameters.
  PlannedModel(const PlannedOps& ops, const ModelConfig& model, const Frozen& frozen, int groups,
               PlannedLender* lender);

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
  // Bytes of what systems other than infini carry in a layer from segment to segment.
  CarriedParts carried(int layer, std::int64_t rows) const;
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
  // What an op reads as one parameter: watched where it trains.
  Sized parameter(SizeTape* tape, const std::vector<std::string>& names) const;
  Sized block_parameter(SizeTape* tape, int layer, std::initializer_list<const char*> names) const;
  Sized table(SizeTape* tape) const;  // the embedding
  // The backward pass of an op that was just recorded asks for the gradient of what it borrowed.
  void ask(SizeTape* tape, const PlannedLender::Loan& loan, const Sized& parameter) const;
  BlockOutput block(SizeTape* tape, int layer, const Sized& x, const HeadLayout& layout,
                    const SizedState& memory) const;
  // Those that stand in the place of infini's block or of its attention.
  BlockOutput block_over_time(SizeTape* tape, int layer, const Sized& x, const HeadLayout& layout,
                              const SizedState& memory, const PlannedLender::Loan& loan) const;
  BlockOutput feedback_block(SizeTape* tape, int layer, const Sized& x, const HeadLayout& layout,
                             const SizedState& memory, const PlannedLender::Loan& loan) const;
  PlannedFeedback::BlockRows rows_of(SizeTape* tape, int layer,
                                     const PlannedLender::Loan& loan) const;
  BlockOutput recomputed_block(SizeTape* tape, int layer, const Sized& x, const HeadLayout& layout,
                               const SizedState& memory) const;
  LayerPart parts_of(SizeTape* tape, int layer) const;
  Sized embed(SizeTape* tape, const HeadLayout& layout, const Sized& tokens) const;
  // What a block borrows while it runs, and its backward pass again.
  PlannedLender::Loan borrow_block(SizeTape* tape, int layer) const;
  Sized norm(SizeTape* tape, const Sized& x, const Sized& weight, std::int64_t rows) const;
  Sized block_norm(SizeTape* tape, int layer, const char* name, const Sized& x,
                   std::int64_t rows) const;
  Sized final_norm(SizeTape* tape, const Sized& x, std::int64_t rows) const;
  Sized project(SizeTape* tape, int layer, const Sized& x, const HeadLayout& layout,
                const PlannedLender::Loan& loan) const;
  Sized feed_forward(SizeTape* tape, int layer, const Sized& x, const Sized& residual,
                     std::int64_t rows, const PlannedLender::Loan& loan) const;

  const PlannedOps& ops_;
  const ModelConfig& model_;
  Frozen frozen_;
  PlannedMemory memory_;
  PlannedCache cache_;
  PlannedOverTime over_time_;
  PlannedFeedback feedback_;
  PlannedLender* lender_;
  std::vector<bool> block_trains_;
  mutable std::weak_ptr<Trace::Block> table_gradients_;  // of the embedding
};

}  // namespace infini
