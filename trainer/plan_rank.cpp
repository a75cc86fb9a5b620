#include <algorithm>
#include <filesystem>

#include "data/passkey_source.h"
#include "distributed/owners.h"
#include "trainer/parallel_checks.h"
#include "trainer/plan_step.h"

namespace infini {
namespace {

int vocabulary_of(const DataConfig& data) {
  if (data.source == DataKind::kPasskey)
    return passkey_tokenizer(data.passkey.tokens)->vocabulary();
  check<ConfigError>(std::filesystem::exists(std::filesystem::path(data.store) / "train.h5"),
                     "model.vocabulary is 0, that of the data, but data.store = ", data.store,
                     " holds no train.h5; give model.vocabulary");
  return open_store(data)->vocabulary();
}

}  // namespace

PlannedRank planned_rank(const RunConfig& config, int ranks) {
  PlannedRank rank;
  rank.config = config;
  rank.axes = axes_of(ranks, config.parallel);
  ModelConfig& whole = rank.config.model;
  if (whole.vocabulary == 0) whole.vocabulary = vocabulary_of(config.data);
  check_parallel(rank.config, rank.axes);
  rank.row_tokens =
      config.data.source == DataKind::kStore
          ? config.data.row_tokens
          : *std::ranges::max_element(config.data.passkey.row_segments) * whole.segment_tokens;
  rank.model = whole.share(rank.axes.tensors);

  const std::vector<ParameterSpec> specs = rank.specs();
  std::int64_t block = 0;
  for (const ParameterSpec& spec : specs) {
    rank.parameters += spec.shape.size();
    if (spec.name.starts_with("blocks.0.")) block += spec.shape.size();
  }
  rank.largest_block = std::max(block, specs.front().shape.size());
  std::vector<std::int64_t> sizes;
  for (const ParameterSpec& spec : specs) sizes.push_back(spec.shape.size());
  std::vector<int> owners = owners_of(sizes, rank.axes.copies());
  for (std::size_t i = 0; i < specs.size(); ++i)
    if (specs[i].full_precision) owners[i] = FlatPiece::kEveryone;
  rank.owner_pieces = static_cast<std::int64_t>(pieces_of(sizes, owners).size());
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
