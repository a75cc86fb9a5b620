#include "trainer/parameter_shards.h"

#include "tensor/ops/elementwise.h"

namespace infini {

ParameterShards::ParameterShards(const Communicator& replicas, Shard shard,
                                 const Parameters& parameters)
    : replicas_(replicas),
      shard_(shard),
      gradients_(parameters.gradients()),
      values_(parameters.values()) {
  std::vector<std::int64_t> sizes;
  for (const Parameter& parameter : parameters.all()) sizes.push_back(parameter.master.size());
  std::vector<int> owners = owners_of(sizes, replicas_.size());
  for (std::size_t i = 0; i < owners.size(); ++i) {
    const Parameter& parameter = parameters.all()[i];
    owners_[parameter.name] = owners[i];
    if (!divided() || parameter.full_precision) owners[i] = FlatPiece::kEveryone;
  }
  pieces_ = pieces_of(sizes, owners);
}

bool ParameterShards::updates(const Parameter& parameter) const {
  return !divided() || parameter.full_precision || saves(parameter);
}

bool ParameterShards::saves(const Parameter& parameter) const {
  return owners_.at(parameter.name) == replicas_.rank();
}

Tensor ParameterShards::square_sum_of_gradients() const {
  if (!divided()) return square_sum(gradients_);
  const Tensor total = Tensor::zeros({}, DType::kFloat64, gradients_.device());
  for (const FlatPiece& piece : pieces_) {
    const int counts = piece.owner == FlatPiece::kEveryone ? 0 : piece.owner;
    if (counts == replicas_.rank())
      add_into({.tensor = total, .accumulate = true},
               square_sum(gradients_.slice(piece.begin, piece.size())));
  }
  replicas_.all_reduce(total);
  replicas_.wait();
  return total;
}

void ParameterShards::share_values() const {
  if (!divided()) return;
  for (const FlatPiece& piece : pieces_)
    if (piece.owner != FlatPiece::kEveryone)
      replicas_.broadcast(values_.slice(piece.begin, piece.size()), piece.owner);
  replicas_.wait();
}

}  // namespace infini
