// Megalodon's attention after moving averages and a norm over time, in sizes:
// model/megalodon_attention.h. How long it takes was not measured and is not counted.
#pragma once

#include <vector>

#include "trainer/plan_cache.h"

namespace infini {

class PlannedOverTime {
 public:
  PlannedOverTime(const PlannedOps& ops, const ModelConfig& model) : ops_(ops), model_(model) {}

  struct Output {
    Sized y;
    SizedState after;
  };
  // Of the residual stream x [R, D].
  Output attend(SizeTape* tape, const LayerPart& part, const Sized& x, const HeadLayout& layout,
                const SizedState& memory) const;
  // The memory after it alone.
  SizedState remember(const LayerPart& part, const Sized& x, const HeadLayout& layout,
                      const SizedState& memory) const;

  // Bytes of what a layer carries from segment to segment, of so many rows.
  CarriedParts carried(std::int64_t rows) const;

 private:
  struct Averaged {
    Sized normed, y;
    SizedState after;
  };
  Averaged average(SizeTape* tape, const LayerPart& part, const Sized& x, const HeadLayout& layout,
                   const SizedState& memory) const;
  Sized shared_heads(SizeTape* tape, const LayerPart& part, const Averaged& averaged,
                     const HeadLayout& layout) const;
  Sized gated_heads(SizeTape* tape, const LayerPart& part, const Sized& gate, const Sized& x,
                    const HeadLayout& layout) const;

  const PlannedOps& ops_;
  const ModelConfig& model_;
};

}  // namespace infini
