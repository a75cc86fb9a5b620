#include "distributed/layout.h"

namespace infini {

Axes axes_of(int ranks, const ParallelConfig& config) {
  config.validate();
  const std::int64_t others = std::int64_t{config.tensor} * config.segment;
  check<ConfigError>(config.data > 0 || ranks % others == 0, "parallel.tensor = ", config.tensor,
                     " times parallel.segment = ", config.segment, " is ", others,
                     ", which does not divide the ", ranks, " ranks of this run");
  const std::int64_t data = config.data > 0 ? config.data : ranks / others;
  check<ConfigError>(
      data * others == ranks, "parallel.data = ", data, " times parallel.tensor = ", config.tensor,
      " times parallel.segment = ", config.segment, " is ", data * others, ", but this run has ",
      ranks, ranks == 1 ? " rank" : " ranks", "; start it with mpirun -np ", data * others);
  return {.data = static_cast<int>(data), .segments = config.segment, .tensors = config.tensor};
}

Layout make_layout(const Communicator& all, const ParallelConfig& config) {
  Layout layout;
  static_cast<Axes&>(layout) = axes_of(all.size(), config);
  const int rank = all.rank(), others = layout.tensors * layout.segments;
  layout.data_index = rank / others;
  layout.segment_index = rank / layout.tensors % layout.segments;
  layout.tensor_index = rank % layout.tensors;
  layout.all = all;
  const auto group = [&](int extent, int color) {
    return extent == 1 ? Communicator() : all.split(color);
  };
  layout.segment_group =
      group(layout.segments, layout.data_index * layout.tensors + layout.tensor_index);
  layout.tensor_group = group(layout.tensors, rank / layout.tensors);
  layout.data_group = group(layout.data, rank % others);
  layout.replicas = group(layout.copies(), layout.tensor_index);
  return layout;
}

}  // namespace infini
