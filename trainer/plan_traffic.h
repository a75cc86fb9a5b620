// What ranks send each other in a step, by axis and link.
#pragma once

#include <string>
#include <vector>

#include "trainer/card_figures.h"
#include "trainer/plan_step.h"

namespace infini {

// Ranks of a group, `stride` apart in the order of ranks, on nodes of consecutive ranks.
struct GroupPlace {
  int ranks = 1, per_node = 1, nodes = 1;
};
GroupPlace place_of(int ranks, int stride, int gpus_per_node);

// How often each byte of a buffer passes a rank: a sum for everyone twice, all else once.
enum class Collective { kAllReduce, kReduceScatter, kAllGather, kReduce, kBroadcast };

// One kind of exchange of a step, as one GPU sees it.
struct Exchange {
  std::string axis, what;
  std::int64_t calls = 0;
  double nvlink_bytes = 0, network_bytes = 0;  // that this GPU sends
  double seconds = 0;
  enum class Hides { kNot, kBehindLastBackward, kBehindStep } hides = Hides::kNot;
};

// The exchange of `bytes` of the whole buffer by `calls` calls. Links work at the same time; sums
// hop along a tree, gathers around a ring.
Exchange exchange_of(const GroupPlace& place, Collective how, double bytes, std::int64_t calls,
                     const CardFigures& figures);

std::vector<Exchange> planned_traffic(const PlannedRank& rank, const PlannedStep& step,
                                      int gpus_per_node, const CardFigures& figures);

}  // namespace infini
