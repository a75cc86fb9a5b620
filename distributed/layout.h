// Where a rank stands on the axes along which a model is trained in parallel.
#pragma once

#include "distributed/communicator.h"
#include "distributed/config.h"

namespace infini {

// Rank r of all is number t of its tensor group, s of its segment group and d of its data group
// with r = (d segments + s) tensors + t: what exchanges most lies on neighbouring ranks.
struct Layout {
  int data = 1, segments = 1, tensors = 1;                  // extents of the axes
  int data_index = 0, segment_index = 0, tensor_index = 0;  // of this rank
  Communicator all;
  Communicator segment_group;  // the ranks that differ in segment_index alone; so the next two
  Communicator tensor_group;
  Communicator data_group;
  Communicator replicas;  // all that hold the same parameters: equal in tensor_index

  bool is_first() const { return all.is_first(); }
};

// parallel.data = 0 takes what the other axes leave. Throws ConfigError, naming the numbers, when
// the axes do not multiply to the number of ranks. Collective over `all`.
Layout make_layout(const Communicator& all, const ParallelConfig& config);

}  // namespace infini
