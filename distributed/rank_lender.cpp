#include "distributed/rank_lender.h"

#include <utility>

#include "tensor/ops/elementwise.h"

namespace infini {

RankLender::RankLender(const Communicator& ranks, const Parameters& parameters,
                       const std::vector<int>& owners, bool divides_values)
    : ranks_(ranks),
      divides_values_(divides_values),
      compute_(parameters.compute()),
      device_(parameters.masters().device()) {
  for (std::size_t i = 0; i < owners.size(); ++i) {
    const Parameter& parameter = parameters.all()[i];
    if (parameter.full_precision) continue;
    const bool mine = owners[i] == ranks.rank();
    const auto lend = [&](std::vector<Lent>& all, std::int64_t offset, const Tensor& tensor) {
      all.push_back({.offset = offset,
                     .size = tensor.size(),
                     .owner = owners[i],
                     .kept = mine ? tensor.reshape({tensor.size()}) : Tensor{}});
    };
    lend(values_, parameter.offset, parameter.value);
    if (!parameter.frozen) lend(gradients_, parameter.gradient_offset, parameter.gradient);
  }
}

std::vector<RankLender::Lent> RankLender::in(ElementRange range, const std::vector<Lent>& all) {
  std::vector<Lent> found;
  for (const Lent& lent : all)
    if (lent.offset >= range.begin && lent.end() <= range.end) found.push_back(lent);
  return found;
}

// What is in full precision between two of one owner goes along.
std::vector<FlatPiece> RankLender::pieces(ElementRange range, const std::vector<Lent>& all) {
  std::vector<FlatPiece> pieces;
  for (const Lent& lent : in(range, all)) {
    if (pieces.empty() || pieces.back().owner != lent.owner)
      pieces.push_back({.begin = lent.offset, .end = lent.end(), .owner = lent.owner});
    pieces.back().end = lent.end();
  }
  return pieces;
}

Tensor RankLender::values(ElementRange range, ElementRange next) {
  if (!divides_values_) return {};
  const Elements here = next_.all && next_.range == range ? next_ : gather(range);
  next_ = {};
  settle();
  start(std::exchange(waiting_, {}));
  if (next.size() > 0) next_ = gather(next);
  return here.all;
}

// A wait is for everything that is on its way: gradients that left now would be waited for by the
// values of the next range, which are asked for at once. They leave after these.
void RankLender::add_gradients(ElementRange range, const Tensor& gradients) {
  if (waiting_.all || !divides_values_) {
    settle();
    start(std::exchange(waiting_, {}));
  }
  waiting_ = {.range = range, .all = gradients};
  if (!divides_values_) start(std::exchange(waiting_, {}));
}

void RankLender::finish() {
  next_ = {};
  settle();
  start(std::exchange(waiting_, {}));
  settle();
}

RankLender::Elements RankLender::gather(ElementRange range) const {
  const Elements gathered{.range = range, .all = Tensor::empty({range.size()}, compute_, device_)};
  for (const Lent& lent : in(range, values_))
    if (lent.kept) gathered.all.slice(lent.offset - range.begin, lent.size).copy_from(lent.kept);
  for (const FlatPiece& piece : pieces(range, values_))
    ranks_.broadcast(gathered.all.slice(piece.begin - range.begin, piece.size()), piece.owner);
  return gathered;
}

void RankLender::start(const Elements& gradients) {
  if (!gradients.all) return;
  for (const FlatPiece& piece : pieces(gradients.range, gradients_))
    ranks_.reduce(gradients.all.slice(piece.begin - gradients.range.begin, piece.size()),
                  piece.owner);
  on_their_way_ = gradients;
}

void RankLender::settle() {
  ranks_.wait();
  if (!on_their_way_.all) return;
  for (const Lent& lent : in(on_their_way_.range, gradients_))
    if (lent.kept)
      add_into({.tensor = lent.kept, .accumulate = true},
               on_their_way_.all.slice(lent.offset - on_their_way_.range.begin, lent.size));
  on_their_way_ = {};
}

}  // namespace infini
