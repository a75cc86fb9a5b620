#include <algorithm>
#include <filesystem>

#include "data/passkey_source.h"
#include "distributed/owners.h"
#include "optim/groups.h"
#include "trainer/parallel_checks.h"
#include "trainer/parameter_shards.h"
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
  int owner = FlatPiece::kEveryone, gradient_owner = FlatPiece::kEveryone;
  const auto add = [](std::int64_t& pieces, int& piece_owner, int next) {
    if (next == FlatPiece::kEveryone || next == piece_owner) return;
    piece_owner = next;
    ++pieces;
  };
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
      owner = gradient_owner = FlatPiece::kEveryone;
    }
    LentPart& lent = parts.back();
    lent.elements += specs[i].shape.size();
    add(lent.owner_pieces, owner, owners[i]);
    if (specs[i].frozen) continue;
    lent.gradient_elements += specs[i].shape.size();
    add(lent.gradient_pieces, gradient_owner, owners[i]);
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
  check_frozen(config.optim, parameter_specs(whole));
  rank.frozen = frozen_by(config.optim);
  rank.row_tokens = config.data.longest_row_tokens(whole.segment_tokens);
  rank.model = whole.share(rank.axes.tensors);

  const std::vector<ParameterSpec> specs = rank.specs();
  std::vector<int> owners = parameter_owners(specs, rank.axes.copies(), config.parallel.shard);
  std::vector<std::int64_t> trained_sizes;
  std::vector<int> trained_owners;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const std::int64_t size = specs[i].shape.size();
    rank.parameters += size;
    if (specs[i].full_precision) owners[i] = FlatPiece::kEveryone;
    if (specs[i].frozen) continue;
    rank.trained += size;
    if (specs[i].full_precision) rank.everyones += size;
    trained_sizes.push_back(size);
    trained_owners.push_back(owners[i]);
  }
  for (const FlatPiece& piece : pieces_of(trained_sizes, trained_owners))
    ++(piece.owner == FlatPiece::kEveryone ? rank.everyones_pieces : rank.owner_pieces);
  rank.parts = lent_parts(specs, owners);
  for (const ParameterSpec* spec : rank.updated(specs)) rank.owned += spec->shape.size();
  for (const ParameterSpec* spec : rank.looked_after(specs)) rank.kept += spec->shape.size();
  return rank;
}

std::vector<ParameterSpec> PlannedRank::specs() const {
  return parameter_specs(config.model, axes.tensors, 0, frozen);
}

std::vector<const ParameterSpec*> PlannedRank::updated(
    const std::vector<ParameterSpec>& specs) const {
  std::vector<const ParameterSpec*> result = looked_after(specs);
  std::erase_if(result, [](const ParameterSpec* spec) { return spec->frozen; });
  return result;
}

std::vector<const ParameterSpec*> PlannedRank::looked_after(
    const std::vector<ParameterSpec>& specs) const {
  const std::vector<int> owners = parameter_owners(specs, axes.copies(), config.parallel.shard);
  std::vector<std::int64_t> totals(static_cast<std::size_t>(axes.copies()));
  for (std::size_t i = 0; i < specs.size(); ++i)
    totals[owners[i]] += parameter_weight(specs[i], config.parallel.shard);
  const auto most = std::ranges::max_element(totals) - totals.begin();
  std::vector<const ParameterSpec*> result;
  for (std::size_t i = 0; i < specs.size(); ++i)
    if (!divides(Shard::kOptimizer) || specs[i].full_precision || owners[i] == most)
      result.push_back(&specs[i]);
  return result;
}

}  // namespace infini
