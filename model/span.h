// Consecutive segments of equal length, which a model takes at once.
#pragma once

#include <optional>

#include "model/config.h"
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

// B rows of S segments of T tokens with the heads of a model.
inline HeadLayout layout_of(const ModelConfig& config, std::int64_t batch, std::int64_t segments,
                            std::int64_t tokens) {
  return {.batch = batch,
          .segments = segments,
          .tokens = tokens,
          .heads = config.heads,
          .kv_heads = config.key_value_heads(),
          .head_width = config.head_width()};
}

}  // namespace infini
