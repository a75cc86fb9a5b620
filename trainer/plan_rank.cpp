#include <algorithm>
#include <filesystem>

#include "data/passkey_source.h"
#include "distributed/owners.h"
#include "trainer/parallel_checks.h"
#include "trainer/plan_step.h"

namespace infini {
namespace {

int vocabulary_of(const DataConfig& data) {
  if (data.source == DataKind::kPasskey) return passkey_tokenizer(data.passkey)->vocabulary();
  check<ConfigError>(std::filesystem::exists(std::filesystem::path(data.store) / "train.h5"),
                     "model.vocabulary is 0, that of the data, but data.store = ", data.store,
                     " holds no train.h5; give model.vocabulary");
  return open_store(data)->vocabulary();
}

// As InfiniTransformer borrows them; memory tokens and the final norm are everyone's.
std::vector<LentPart> lent_parts(const std::vector<ParameterSpec>& specs,
                                 const std::vector<int>& owners) {
  std::vector<LentPart> parts;
  std::string last;
  int owner = FlatPiece::kEveryone;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const std::string& name = specs[i].name;
    if (name.starts_with("final_norm.") || name.starts_with("memory_tokens.")) continue;
    // "embedding", "blocks.7" or "head".
    const std::size_t dot = name.find('.');
    const std::string part =
        name.substr(0, name.starts_with("blocks.") ? name.find('.', dot + 1) : dot);
    if (part != last) {
      parts.emplace_back();
      last = part;
      owner = FlatPiece::kEveryone;
    }
    parts.back().elements += specs[i].shape.size();
    if (owners[i] == FlatPiece::kEveryone || owners[i] == owner) continue;
    owner = owners[i];
    ++parts.back().owner_pieces;
  }
  return parts;
}

}  // namespace

PlannedRank planned_rank(const RunConfig& config, int ranks) {
  PlannedRank rank;
  rank.config = config;
  rank.axes = axes_of(ranks, config.parallel);
  ModelConfig& whole = rank.config.model;
  if (whole.vocabulary == 0) whole.vocabulary = vocabulary_of(config.data);
  check_parallel(rank.config, rank.axes);
  rank.row_tokens = config.data.longest_row_tokens(whole.segment_tokens);
  rank.model = whole.share(rank.axes.tensors);

  const std::vector<ParameterSpec> specs = rank.specs();
  std::vector<std::int64_t> sizes;
  for (const ParameterSpec& spec : specs) {
    rank.parameters += spec.shape.size();
    if (spec.full_precision) rank.everyones += spec.shape.size();
    sizes.push_back(spec.shape.size());
  }
  std::vector<int> owners = owners_of(sizes, rank.axes.copies());
  for (std::size_t i = 0; i < specs.size(); ++i)
    if (specs[i].full_precision) owners[i] = FlatPiece::kEveryone;
  for (const FlatPiece& piece : pieces_of(sizes, owners))
    ++(piece.owner == FlatPiece::kEveryone ? rank.everyones_pieces : rank.owner_pieces);
  rank.parts = lent_parts(specs, owners);
  for (const ParameterSpec* spec : rank.updated(specs)) rank.owned += spec->shape.size();
  return rank;
}

std::vector<ParameterSpec> PlannedRank::specs() const {
  return parameter_specs(config.model, axes.tensors);
}

std::vector<const ParameterSpec*> PlannedRank::updated(
    const std::vector<ParameterSpec>& specs) const {
  std::vector<std::int64_t> sizes;
  for (const ParameterSpec& spec : specs) sizes.push_back(spec.shape.size());
  const std::vector<int> owners = owners_of(sizes, axes.copies());
  std::vector<std::int64_t> totals(static_cast<std::size_t>(axes.copies()));
  for (std::size_t i = 0; i < specs.size(); ++i) totals[owners[i]] += sizes[i];
  const auto most = std::ranges::max_element(totals) - totals.begin();
  std::vector<const ParameterSpec*> result;
  for (std::size_t i = 0; i < specs.size(); ++i)
    if (!divides(Shard::kOptimizer) || specs[i].full_precision || owners[i] == most)
      result.push_back(&specs[i]);
  return result;
}

}  // namespace infini
