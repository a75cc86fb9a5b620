#include "distributed/layout.h"

namespace infini {

Layout make_layout(const Communicator& all, const ParallelConfig& config) {
  config.validate();
  const int ranks = all.size(), others = config.tensor * config.segment;
  check<ConfigError>(config.data > 0 || ranks % others == 0, "parallel.tensor = ", config.tensor,
                     " times parallel.segment = ", config.segment, " is ", others,
                     ", which does not divide the ", ranks, " ranks of this run");
  const int data = config.data > 0 ? config.data : ranks / others;
  check<ConfigError>(
      data * others == ranks, "parallel.data = ", data, " times parallel.tensor = ", config.tensor,
      " times parallel.segment = ", config.segment, " is ", data * others, ", but this run has ",
      ranks, ranks == 1 ? " rank" : " ranks", "; start it with mpirun -np ", data * others);
  const int rank = all.rank();
  Layout layout{.data = data,
                .segments = config.segment,
                .tensors = config.tensor,
                .data_index = rank / others,
                .segment_index = rank / config.tensor % config.segment,
                .tensor_index = rank % config.tensor,
                .all = all,
                .segment_group = {},
                .tensor_group = {},
                .data_group = {},
                .replicas = {}};
  const auto group = [&](int extent, int color) {
    return extent == 1 ? Communicator() : all.split(color);
  };
  layout.segment_group =
      group(layout.segments, layout.data_index * layout.tensors + layout.tensor_index);
  layout.tensor_group = group(layout.tensors, rank / config.tensor);
  layout.data_group = group(data, rank % others);
  layout.replicas = group(data * layout.segments, layout.tensor_index);
  return layout;
}

}  // namespace infini
