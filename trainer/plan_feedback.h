// TransformerFAM's attention, whose vectors go through the rest of the block as well, in sizes:
// model/feedback_attention.h. How long it takes was not measured and is not counted.
#pragma once

#include "trainer/plan_cache.h"

namespace infini {

class PlannedFeedback {
 public:
  PlannedFeedback(const PlannedOps& ops, const ModelConfig& model) : ops_(ops), model_(model) {}

  // What the block does to so many rows besides attention, see model/block_rows.h.
  struct BlockRows {
    std::function<Sized(const Sized&x, std::int64_t rows)> normed, feed_forward;
  };
  struct Output {
    Sized heads;
    SizedState after;
    Sized held;  // until the output projection is done
  };
  // `layout` is that of the tokens; x [B (S T + F), D] is normalised, and has the learned vectors
  // after the tokens of each batch row, as `residual` has. Without heads where `of_tokens` is not.
  Output attend(SizeTape* tape, const LayerPart& part, const Sized& x, const Sized& residual,
                const HeadLayout& layout, const SizedState& memory, const BlockRows& block,
                bool of_tokens) const;

  // x with the learned vectors, and the tokens alone.
  Sized with_prompt(SizeTape* tape, const Sized& x, const Sized& learned,
                    const HeadLayout& layout) const;
  Sized without_prompt(SizeTape* tape, const Sized& x, const HeadLayout& layout) const;
  std::int64_t rows(const HeadLayout& layout) const {
    return layout.rows() + layout.batch * vectors();
  }

  // Bytes of what a layer carries from segment to segment, of so many rows.
  CarriedParts carried(std::int64_t rows) const;

 private:
  // Rows that attention reads.
  struct Places {
    Sized queries, keys, values;
    std::int64_t count;
  };
  Places places(SizeTape* tape, const Sized& qkv, std::int64_t batch, std::int64_t count) const;
  Places window_places(SizeTape* tape, const Sized& pairs, std::int64_t batch) const;
  Sized rotated(SizeTape* tape, const Sized& qkv, std::int64_t rows, std::int64_t width) const;
  Sized attend_to(SizeTape* tape, const Sized& queries, std::int64_t count,
                  const std::vector<Places>& read, std::int64_t batch) const;
  SizedState given(const SizedState& memory, std::int64_t batch) const;

  std::int64_t vectors() const { return model_.feedback_tokens(); }
  std::int64_t window() const { return model_.cached_tokens(); }
  std::int64_t queries() const { return std::int64_t{model_.heads} * model_.head_width(); }
  std::int64_t keys() const { return std::int64_t{model_.key_value_heads()} * model_.head_width(); }

  const PlannedOps& ops_;
  const ModelConfig& model_;
};

}  // namespace infini
