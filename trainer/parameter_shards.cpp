#include "trainer/parameter_shards.h"

#include "tensor/ops/elementwise.h"

namespace infini {

std::int64_t parameter_weight(const ParameterSpec& spec, Shard shard) {
  return spec.shape.size() * (!spec.frozen ? 4 : shard == Shard::kParameters ? 1 : 0);
}

std::vector<int> parameter_owners(const std::vector<ParameterSpec>& specs, int ranks, Shard shard) {
  std::vector<std::int64_t> weights;
  for (const ParameterSpec& spec : specs) weights.push_back(parameter_weight(spec, shard));
  return owners_of(weights, ranks);
}

ParameterShards::ParameterShards(const Communicator& replicas, const Communicator& tensors,
                                 Shard shard, const std::vector<ParameterSpec>& specs)
    : replicas_(replicas),
      tensors_(tensors),
      shard_(shard),
      specs_(specs),
      owners_(parameter_owners(specs, replicas.size(), shard)) {
  for (const ParameterSpec& spec : specs)
    if (spec.full_precision && !spec.frozen) full_elements_ += spec.shape.size();
  for (std::size_t i = 0; i < specs.size(); ++i) owner_by_name_[specs[i].name] = owners_[i];
}

Keeps ParameterShards::keeps() const {
  if (!divides(Shard::kGradients)) return {};
  return [owners = owner_by_name_, rank = replicas_.rank(),
          values = divides(Shard::kParameters)](const ParameterSpec& spec) {
    const bool mine = owners.at(spec.name) == rank;
    return Kept{.value = mine || !values, .gradient = mine};
  };
}

std::unique_ptr<RankLender> ParameterShards::lender(const Parameters& parameters) const {
  if (!divides(Shard::kGradients)) return nullptr;
  return std::make_unique<RankLender>(replicas_, parameters, owners_, divides(Shard::kParameters));
}

bool ParameterShards::updates(const Parameter& parameter) const {
  return !divides(Shard::kOptimizer) || parameter.full_precision || owns(parameter);
}

bool ParameterShards::owns(const Parameter& parameter) const {
  return owner_by_name_.at(parameter.name) == replicas_.rank();
}

bool ParameterShards::speaks_for(const Division& division) const {
  return division.is_part() || tensors_.is_first();
}

Tensor ParameterShards::exchanged(const Parameters& parameters) const {
  const Tensor& gradients = parameters.gradients();
  return divides(Shard::kGradients) ? gradients.slice(0, full_elements_) : gradients;
}

std::vector<FlatPiece> ParameterShards::pieces() const {
  if (divides(Shard::kGradients)) return {{.begin = 0, .end = full_elements_}};
  const std::vector<int> updaters = this->updaters();
  std::vector<std::int64_t> sizes;
  std::vector<int> owners;
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    if (specs_[i].frozen) continue;
    sizes.push_back(specs_[i].shape.size());
    owners.push_back(updaters[i]);
  }
  return pieces_of(sizes, owners);
}

// Full precision is everyone's, and what is frozen is never updated.
std::vector<int> ParameterShards::updaters() const {
  std::vector<int> owners = owners_;
  for (std::size_t i = 0; i < owners.size(); ++i)
    if (!divides(Shard::kOptimizer) || specs_[i].full_precision || specs_[i].frozen)
      owners[i] = FlatPiece::kEveryone;
  return owners;
}

// What all replicas have is measured by the first of them, and what all ranks that share blocks
// have by the first of those.
std::vector<FlatPiece> ParameterShards::measured(const Parameters& parameters) const {
  std::vector<FlatPiece> ranges;
  const Tensor& gradients = parameters.gradients();
  for (const Parameter& parameter : parameters.all()) {
    const bool mine = !divides(Shard::kOptimizer) ||
                      (parameter.full_precision ? replicas_.is_first() : owns(parameter));
    if (!mine || !parameter.gradient || !speaks_for(parameter.division)) continue;
    const std::int64_t begin =
        (parameter.gradient.raw() - gradients.raw()) / bytes_of(gradients.dtype());
    if (ranges.empty() || ranges.back().end != begin)
      ranges.push_back({.begin = begin, .end = begin});
    ranges.back().end += parameter.gradient.size();
  }
  return ranges;
}

Tensor ParameterShards::square_sum_of_gradients(const Parameters& parameters) const {
  const Tensor& gradients = parameters.gradients();
  if (!divides(Shard::kOptimizer) && tensors_.size() == 1) return square_sum(gradients);
  const Tensor total = Tensor::zeros({}, DType::kFloat64, gradients.device());
  for (const FlatPiece& range : measured(parameters))
    add_into({.tensor = total, .accumulate = true},
             square_sum(gradients.slice(range.begin, range.size())));
  if (divides(Shard::kOptimizer)) replicas_.all_reduce(total);
  replicas_.wait();
  tensors_.all_reduce(total);
  tensors_.wait();
  return total;
}

void ParameterShards::share_values(const Parameters& parameters) const {
  if (!divides(Shard::kOptimizer) || divides(Shard::kParameters)) return;
  std::vector<std::int64_t> sizes;
  for (const ParameterSpec& spec : specs_) sizes.push_back(spec.shape.size());
  for (const FlatPiece& piece : pieces_of(sizes, updaters()))
    if (piece.owner != FlatPiece::kEveryone)
      replicas_.broadcast(parameters.values().slice(piece.begin, piece.size()), piece.owner);
  replicas_.wait();
}

}  // namespace infini
