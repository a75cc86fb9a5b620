#include "distributed/rank_lender.h"

#include "tensor/ops/elementwise.h"

namespace infini {

RankLender::RankLender(const Communicator& ranks, const Parameters& parameters,
                       const std::vector<int>& owners)
    : ranks_(ranks) {
  for (std::size_t i = 0; i < owners.size(); ++i) {
    const Parameter& parameter = parameters.all()[i];
    if (parameter.full_precision) continue;
    Lent lent{.offset = parameter.offset,
              .size = parameter.value.size(),
              .owner = owners[i],
              .gradient = {}};
    if (lent.owner == ranks.rank()) lent.gradient = parameter.gradient.reshape({lent.size});
    lent_.push_back(lent);
  }
}

std::vector<RankLender::Lent> RankLender::in(ElementRange range) const {
  std::vector<Lent> found;
  for (const Lent& lent : lent_)
    if (lent.offset >= range.begin && lent.end() <= range.end) found.push_back(lent);
  return found;
}

// What is in full precision between two of one owner goes along.
std::vector<FlatPiece> RankLender::pieces(ElementRange range) const {
  std::vector<FlatPiece> pieces;
  for (const Lent& lent : in(range)) {
    if (pieces.empty() || pieces.back().owner != lent.owner)
      pieces.push_back({.begin = lent.offset, .end = lent.end(), .owner = lent.owner});
    pieces.back().end = lent.end();
  }
  return pieces;
}

Tensor RankLender::values(ElementRange, ElementRange) { return {}; }

void RankLender::add_gradients(ElementRange range, const Tensor& gradients) {
  settle();
  start({.range = range, .sum = gradients});
}

void RankLender::finish() { settle(); }

void RankLender::start(const Gradients& gradients) {
  for (const FlatPiece& piece : pieces(gradients.range))
    ranks_.reduce(gradients.sum.slice(piece.begin - gradients.range.begin, piece.size()),
                  piece.owner);
  on_their_way_ = gradients;
}

void RankLender::settle() {
  if (!on_their_way_.sum) return;
  ranks_.wait();
  for (const Lent& lent : in(on_their_way_.range))
    if (lent.gradient)
      add_into({.tensor = lent.gradient, .accumulate = true},
               on_their_way_.sum.slice(lent.offset - on_their_way_.range.begin, lent.size));
  on_their_way_ = {};
}

}  // namespace infini
