// Where a rank stands on the axes along which a model is trained in parallel.
#pragma once

#include "distributed/communicator.h"
#include "distributed/config.h"

namespace infini {

// How many ranks stand on each axis.
struct Axes {
  int data = 1, segments = 1, tensors = 1;

  int ranks() const { return data * segments * tensors; }
  int copies() const { return data * segments; }  // ranks that hold the same parameters
};

// parallel.data = 0 takes what the other axes leave. Throws ConfigError, naming the numbers, when
// the axes do not multiply to the number of ranks.
Axes axes_of(int ranks, const ParallelConfig& config);

// Rank r of all is number t of its tensor group, s of its segment group and d of its data group
// with r = (d segments + s) tensors + t: what exchanges most lies on neighbouring ranks.
struct Layout : Axes {
  int data_index = 0, segment_index = 0, tensor_index = 0;  // of this rank
  Communicator all;
  Communicator segment_group;  // the ranks that differ in segment_index alone; so the next two
  Communicator tensor_group;
  Communicator data_group;
  Communicator replicas;  // all that hold the same parameters: equal in tensor_index

  bool is_first() const { return all.is_first(); }
};

// axes_of() the ranks of `all`. Collective over `all`.
Layout make_layout(const Communicator& all, const ParallelConfig& config);

}  // namespace infini
