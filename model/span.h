// Consecutive segments of equal length, which a model takes at once.
#pragma once

#include <optional>

#include "model/segment_groups.h"
#include "tensor/ops/heads.h"

namespace infini {

struct Span {
  HeadLayout layout;    // B rows of S segments of T tokens; R = B S T
  Tensor tokens;        // [R] int32
  Tensor keep;          // [R] u8, 0: padding, which writes nothing into the memory; empty: all kept
  ScanBorders borders;  // where rows forget, and where gradients stop
  std::optional<SegmentGroups> groups{};  // where these segments are one of several groups of a row
};

}  // namespace infini
