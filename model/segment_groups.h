// Rows whose segments are worked on in groups: consecutive segments of each row, one group to a
// rank or, on one rank, one after the other. What a group does to the memory is a map: it adds a
// sum (linear) or applies an affine map (delta), whatever the length of its rows; the state before
// a group is the composition of the maps before it.
#pragma once

#include <functional>
#include <vector>

#include "tensor/ops/scan.h"

namespace infini {

// What the ranks that share rows tell each other.
class SegmentExchange {
 public:
  virtual ~SegmentExchange() = default;
  virtual int groups() const = 0;  // P
  virtual int index() const = 0;   // of this rank's group, 0 .. P - 1
  // mine [n] -> [P, n], everyone's in the order of the groups. All ranks call it alike.
  virtual Tensor gather(const Tensor& mine) const = 0;
};

struct SegmentGroups {
  const SegmentExchange* exchange = nullptr;  // null: this group is the only one, P = 1
  Tensor resets;                     // [B, P] u8, 1: some segment of the group empties the memory;
                                     // or empty: none does
  std::vector<std::uint8_t> detach;  // [P], 1: gradients stop at a border inside the group or at
                                     // its start; or empty: nowhere
};

// The scans of the memory (scan.h) over the segments of this group, with the states of all groups
// around them: `before` is by segment of this group, `after` follows the last group. What groups
// tell each other, forward, is what each does to the memory, and backward the gradient of the state
// before each: one exchange in either direction for linear memory, two for the delta rule.
struct MemoryScans {
  Scan matrix, normalizer;
};
MemoryScans accumulate_in_groups(const SegmentGroups& groups, const ScanBorders& borders,
                                 const Tensor& matrix_sums, const Tensor& normalizer_sums,
                                 const Tensor& matrix, const Tensor& normalizer);
// overlap(normalizer before each segment) is what the delta rule takes off.
MemoryScans affine_in_groups(const SegmentGroups& groups, const ScanBorders& borders,
                             const Tensor& matrix_sums, const Tensor& normalizer_sums,
                             const Tensor& matrix, const Tensor& normalizer,
                             const std::function<Tensor(const Tensor&)>& overlap);

}  // namespace infini
