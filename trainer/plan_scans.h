// The compressive memory of one layer in sizes: sums, scans over segments, and the exchange of
// groups of segments (tensor/ops/{memory,scan,recall}.h, model/segment_groups.h).
#pragma once

#include "model/config.h"
#include "trainer/plan_ops.h"

namespace infini {

class PlannedMemory {
 public:
  // `groups` ranks share the segments of each row; 0: the segments are not in groups.
  PlannedMemory(const PlannedOps& ops, MemoryRule rule, int groups)
      : ops_(ops), rule_(rule), groups_(groups) {}

  struct History {
    SizedState before, after;
  };
  // From what the segments add.
  History accumulate(SizeTape* tape, const Sized& qkv, const SizedState& sums,
                     const HeadLayout& layout, const SizedState& memory) const;
  MemoryRule rule() const { return rule_; }
  Sized recall(SizeTape* tape, const Sized& qkv, const SizedState& before, const Sized& gate,
               const Sized& local, const HeadLayout& layout) const;

 private:
  struct Scan {
    Sized before, after;
  };
  // entries [B, S, state] after initial [B, state]; an affine scan where `overlap` is given.
  Scan scan(SizeTape* tape, const Sized& overlap, const Sized& sums, const Sized& initial,
            std::int64_t rows, std::int64_t entries, std::int64_t state) const;
  Sized overlap(SizeTape* tape, const Sized& qkv, const Sized& normalizer,
                const HeadLayout& layout) const;

  struct GroupStates {
    std::vector<Sized> before, after;
  };
  // What this rank's group adds, of `sizes` numbers a row.
  GroupStates add_over_groups(SizeTape* tape, const std::vector<Sized>& mine,
                              const std::vector<std::int64_t>& sizes,
                              const std::vector<Sized>& initial, std::int64_t rows) const;
  // The map of this rank's group, of `size` numbers a row each.
  Scan map_over_groups(SizeTape* tape, const Sized& overlap, const Sized& sums,
                       const Sized& initial, std::int64_t size, std::int64_t rows) const;
  // Everyone's tensors of so many numbers in all.
  Sized gather(std::int64_t elements) const;
  // The same as `count` tables of 2 P entries a row.
  std::vector<Sized> gather_tables(int count, std::int64_t size, std::int64_t rows) const;
  History accumulate_in_groups(SizeTape* tape, const Sized& qkv, const SizedState& sums,
                               const HeadLayout& layout, const SizedState& memory) const;

  const PlannedOps& ops_;
  MemoryRule rule_;
  int groups_;
};

}  // namespace infini
