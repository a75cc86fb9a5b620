#include "trainer/plan_traffic.h"

#include <algorithm>
#include <cmath>

#include "optim/optimizer.h"

namespace infini {
namespace {

class Traffic {
 public:
  Traffic(int gpus_per_node, const CardFigures& figures)
      : gpus_per_node_(gpus_per_node), figures_(figures) {}

  void add(const char* axis, const char* what, int ranks, int stride, Collective how, double bytes,
           std::int64_t calls, Exchange::Hides hides) {
    if (ranks == 1 || calls == 0) return;
    Exchange made =
        exchange_of(place_of(ranks, stride, gpus_per_node_), how, bytes, calls, figures_);
    made.axis = axis;
    made.what = what;
    made.hides = hides;
    all.push_back(made);
  }

  std::vector<Exchange> all;

 private:
  int gpus_per_node_;
  const CardFigures& figures_;
};

// What Adafactor adds up over the parts of matrices: fp64 sums of rows or columns.
double bytes_of_divided_means(const PlannedRank& rank) {
  const std::vector<ParameterSpec> specs = rank.specs();
  double bytes = 0;
  for (const ParameterSpec* spec : rank.updated(specs))
    for (const StatePart& part : state_parts(rank.config.optim, spec->shape, spec->division))
      if (spec->division.is_part() && !part.division.is_part())
        bytes += static_cast<double>(part.shape.size()) * 8;
  return bytes;
}

}  // namespace

GroupPlace place_of(int ranks, int stride, int gpus_per_node) {
  const int per_node = std::clamp(gpus_per_node / stride, 1, ranks);
  return {.ranks = ranks, .per_node = per_node, .nodes = (ranks + per_node - 1) / per_node};
}

Exchange exchange_of(const GroupPlace& place, Collective how, double bytes, std::int64_t calls,
                     const CardFigures& figures) {
  const double here = place.per_node, nodes = place.nodes;
  const double times = how == Collective::kAllReduce ? 2 : 1;
  const bool ring = how == Collective::kAllGather || how == Collective::kReduceScatter;
  Exchange made{.axis = {}, .what = {}, .calls = calls};
  made.nvlink_bytes = times * bytes * (here - 1) / here;
  made.network_bytes = times * bytes * (nodes - 1) / nodes / here;
  const double hops_here = ring ? here - 1 : times * std::ceil(std::log2(here));
  const double hops_between = ring ? nodes - 1 : times * std::ceil(std::log2(nodes));
  const double latency = 1e-6 * (hops_here * figures.nvlink_microseconds +
                                 hops_between * figures.network_microseconds);
  made.seconds = std::max(made.nvlink_bytes / (1e9 * figures.nvlink_gigabytes),
                          made.network_bytes / (1e9 * figures.network_gigabytes)) +
                 static_cast<double>(calls) * latency;
  return made;
}

std::vector<Exchange> planned_traffic(const PlannedRank& rank, const PlannedStep& step,
                                      int gpus_per_node, const CardFigures& figures) {
  using Hides = Exchange::Hides;
  const Axes& axes = rank.axes;
  const Work& work = step.work;
  const DType compute = dtype_of_compute(rank.config.train.compute);
  const auto trained = static_cast<double>(rank.trained);
  const double gradients = trained * static_cast<double>(bytes_of(accumulator_of(compute)));
  const double values = trained * static_cast<double>(bytes_of(compute));
  const double bucket = rank.config.parallel.bucket_mebibytes * (1 << 20);
  // Gradients leave in buckets; what has an owner leaves apart from what others own.
  const std::int64_t buckets = std::llround(std::ceil(gradients / bucket));

  Traffic traffic(gpus_per_node, figures);
  const auto replicas = [&](const char* what, Collective how, double bytes, std::int64_t calls,
                            Hides hides) {
    traffic.add(axes.segments > 1 ? "data x segment" : "data", what, axes.copies(), axes.tensors,
                how, bytes, calls, hides);
  };
  if (!rank.divides(Shard::kOptimizer)) {
    replicas("gradients, summed", Collective::kAllReduce, gradients, buckets,
             Hides::kBehindLastBackward);
  } else if (!rank.divides(Shard::kGradients)) {
    replicas("gradients, summed by owner", Collective::kReduce, gradients,
             buckets + rank.owner_pieces + rank.everyones_pieces, Hides::kBehindLastBackward);
  } else {
    replicas("gradients, summed by owner", Collective::kReduce, work.lent_gradient_bytes,
             work.lent_gradient_calls, Hides::kBehindStep);
    replicas("gradients of norms, summed", Collective::kAllReduce,
             static_cast<double>(rank.everyones * bytes_of(accumulator_of(compute))), 1,
             Hides::kNot);
  }
  if (rank.divides(Shard::kParameters))
    replicas("values, as blocks need them", Collective::kBroadcast, work.gathered_value_bytes,
             work.gathered_value_calls, Hides::kBehindStep);
  else if (rank.divides(Shard::kOptimizer))
    replicas("values, from owners", Collective::kBroadcast, values, rank.owner_pieces, Hides::kNot);
  traffic.add("segment", "memory of segments", axes.segments, axes.tensors, Collective::kAllGather,
              work.segment_gather_bytes * axes.segments, work.segment_gathers, Hides::kNot);
  // Gradients hide behind those of the weights beside them, as far as these last: not counted.
  traffic.add("tensor", "activations, summed", axes.tensors, 1, Collective::kAllReduce,
              work.tensor_sum_bytes, work.tensor_sums, Hides::kNot);
  traffic.add("tensor", "softmax of rows", axes.tensors, 1, Collective::kAllGather,
              work.tensor_gather_bytes * axes.tensors, work.tensor_gathers, Hides::kNot);
  const double means = bytes_of_divided_means(rank);
  traffic.add("tensor", "means of adafactor", axes.tensors, 1, Collective::kAllReduce, means,
              means > 0 ? 3 : 0, Hides::kNot);
  return traffic.all;
}

}  // namespace infini
