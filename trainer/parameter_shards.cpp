#include "trainer/parameter_shards.h"

#include "tensor/ops/elementwise.h"

namespace infini {

ParameterShards::ParameterShards(const Communicator& replicas, const Communicator& tensors,
                                 Shard shard, const Parameters& parameters)
    : replicas_(replicas),
      tensors_(tensors),
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

  // What everyone has is measured by the first; of what the other ranks that share blocks have too,
  // nobody but the first of those.
  constexpr int kElsewhere = -2;
  for (std::size_t i = 0; i < owners.size(); ++i) {
    if (owners[i] == FlatPiece::kEveryone && divided()) owners[i] = 0;
    if (!speaks_for(parameters.all()[i].division)) owners[i] = kElsewhere;
  }
  for (const FlatPiece& piece : pieces_of(sizes, owners))
    if (piece.owner == (divided() ? replicas_.rank() : FlatPiece::kEveryone))
      measured_.push_back(piece);
}

bool ParameterShards::updates(const Parameter& parameter) const {
  return !divided() || parameter.full_precision || owns(parameter);
}

bool ParameterShards::owns(const Parameter& parameter) const {
  return owners_.at(parameter.name) == replicas_.rank();
}

bool ParameterShards::speaks_for(const Division& division) const {
  return division.is_part() || tensors_.is_first();
}

Tensor ParameterShards::square_sum_of_gradients() const {
  if (!divided() && tensors_.size() == 1) return square_sum(gradients_);
  const Tensor total = Tensor::zeros({}, DType::kFloat64, gradients_.device());
  for (const FlatPiece& piece : measured_)
    add_into({.tensor = total, .accumulate = true},
             square_sum(gradients_.slice(piece.begin, piece.size())));
  if (divided()) replicas_.all_reduce(total);
  replicas_.wait();
  tensors_.all_reduce(total);
  tensors_.wait();
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
