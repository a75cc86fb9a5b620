// The `parallel` block of a run's configuration: how one model is trained on many ranks.
#pragma once

#include <array>
#include <string_view>
#include <utility>

#include "tensor/error.h"

namespace infini {

// Each divides what the one before it does, and more.
enum class Shard { kNone, kOptimizer, kGradients, kParameters };
constexpr std::array<std::pair<std::string_view, Shard>, 4> enum_names(Shard) {
  return {{{"none", Shard::kNone},
           {"optimizer", Shard::kOptimizer},
           {"gradients", Shard::kGradients},
           {"parameters", Shard::kParameters}}};
}

struct ParallelConfig {
  int data = 0;
  int tensor = 1;
  int segment = 1;
  Shard shard = Shard::kNone;
  int row_leaves = 0;
  int segment_leaves = 0;
  double bucket_mebibytes = 64;
  double silence_seconds = 5;
  double progress_seconds = 600;

  template <class Visitor>
  void visit(Visitor& field) {
    field("data", data, "groups of ranks that each take a part of a step's rows; 0: all there are");
    field(
        "tensor", tensor,
        "ranks that share each block: heads with their memories, feed-forward columns, vocabulary");
    field("segment", segment, "ranks that share each row, consecutive segments each");
    field("shard", shard,
          "what ranks that hold the same parameters divide among them instead of each keeping all: "
          "optimizer: its state; gradients: these too, summed block by block as the backward pass "
          "hands them out; parameters: values and masters as well, gathered block by block as "
          "the model runs, which needs train.recompute_blocks");
    field(
        "row_leaves", row_leaves,
        "gradients are added as a balanced tree over this many groups of rows, so that any number "
        "of ranks with the same parallel.tensor gives the same bits; a power of two; 0: in the "
        "fastest order");
    field("segment_leaves", segment_leaves,
          "the same over groups of segments within each group of rows, the linear memory included; "
          "parallel.segment is then 1 or this many");
    field(
        "bucket_mebibytes", bucket_mebibytes,
        "gradients are exchanged in pieces of about this size, while the backward pass goes on; a "
        "block at a time where ranks divide them");
    field("silence_seconds", silence_seconds,
          "a rank from which nothing is heard for so long ends the run on all ranks");
    field(
        "progress_seconds", progress_seconds,
        "where no rank gets from one exchange to the next for so long, the run ends on all ranks; "
        "0: they may take any time");
  }
  void validate() const;

  bool operator==(const ParallelConfig&) const = default;
};

}  // namespace infini
