#include "trainer/parallel_checks.h"

#include <algorithm>

namespace infini {

namespace {

void check_rows(const RunConfig& config, const Layout& layout) {
  const int accumulate = config.train.accumulate;
  check<ConfigError>(config.data.batch_rows % (layout.data * accumulate) == 0,
                     "data.batch_rows = ", config.data.batch_rows,
                     " is not divisible by parallel.data = ", layout.data,
                     " times train.accumulate = ", accumulate);
  const int leaves = config.parallel.row_leaves;
  if (leaves == 0) return;
  check<ConfigError>(leaves % layout.data == 0, "parallel.row_leaves = ", leaves,
                     " is not divisible by parallel.data = ", layout.data);
  check<ConfigError>(config.data.batch_rows % leaves == 0,
                     "data.batch_rows = ", config.data.batch_rows,
                     " is not divisible by parallel.row_leaves = ", leaves);
  check<ConfigError>(accumulate == 1, "train.accumulate = ", accumulate,
                     ", but parallel.row_leaves = ", leaves,
                     " cuts the rows of a step already; leave one of them out");
  check<ConfigError>(layout.segments == 1 || leaves == layout.data,
                     "parallel.row_leaves = ", leaves,
                     ", but with parallel.segment = ", layout.segments,
                     " a rank adds one group of rows: it must be parallel.data = ", layout.data);
}

void check_row_length(const RunConfig& config, const char* key, std::int64_t tokens, int groups,
                      const char* by) {
  const std::int64_t segment = config.model.segment_tokens;
  check<ConfigError>(tokens % (segment * groups) == 0, key, " is a row of ", tokens,
                     " tokens, which does not divide into ", by, " = ", groups,
                     " parts of whole segments of model.segment_tokens = ", segment);
}

void check_segments(const RunConfig& config, const Layout& layout) {
  const int leaves = config.parallel.segment_leaves;
  check<ConfigError>(leaves == 0 || layout.segments == 1 || layout.segments == leaves,
                     "parallel.segment_leaves = ", leaves,
                     " and parallel.segment = ", layout.segments,
                     ": the latter must be 1 or the same");
  check<ConfigError>(leaves == 0 || config.parallel.row_leaves > 0,
                     "parallel.segment_leaves = ", leaves,
                     " needs parallel.row_leaves, 1 for all rows together");
  const int groups = std::max(leaves, layout.segments);
  if (groups <= 1) return;
  const char* const by = leaves > 0 ? "parallel.segment_leaves" : "parallel.segment";
  check<ConfigError>(config.train.schedule == RowSchedule::kParallel, by, " = ", groups,
                     " shares the segments of a row, which train.schedule = streaming would take "
                     "one after the other; train.recompute_blocks=true needs less memory");
  if (config.data.source == DataKind::kStore)
    check_row_length(config, "data.row_tokens", config.data.row_tokens, groups, by);
  else
    for (const std::int64_t segments : config.data.passkey.row_segments)
      check_row_length(config, "data.passkey.row_segments", segments * config.model.segment_tokens,
                       groups, by);
}

// Ranks that divide the gradients sum those of each backward pass before the next: a tree is then
// over one pass of each rank.
void check_shard(const RunConfig& config, const Layout& layout) {
  const ParallelConfig& parallel = config.parallel;
  check<ConfigError>(parallel.shard != Shard::kParameters || config.train.recompute_blocks,
                     "parallel.shard = parameters gives a block's values back when the block has "
                     "run and needs train.recompute_blocks = true, got false");
  if (parallel.shard < Shard::kGradients || layout.replicas.size() == 1) return;
  if (parallel.row_leaves == 0) return;
  const std::string with =
      text(" with parallel.shard = ",
           enum_names(parallel.shard)[static_cast<std::size_t>(parallel.shard)].first,
           ", which sums the gradients of each backward pass over the ranks by itself");
  check<ConfigError>(parallel.row_leaves == layout.data,
                     "parallel.row_leaves = ", parallel.row_leaves,
                     " must be 0 or parallel.data = ", layout.data, with);
  check<ConfigError>(parallel.segment_leaves == 0 || parallel.segment_leaves == layout.segments,
                     "parallel.segment_leaves = ", parallel.segment_leaves,
                     " must be 0 or parallel.segment = ", layout.segments, with);
  check<ConfigError>(config.train.schedule == RowSchedule::kParallel,
                     "parallel.row_leaves = ", parallel.row_leaves,
                     " needs train.schedule = parallel", with);
  const std::int64_t segment = config.model.segment_tokens;
  check<ConfigError>(
      config.data.source != DataKind::kStore || config.data.row_tokens % segment == 0,
      "parallel.row_leaves = ", parallel.row_leaves,
      " needs data.row_tokens = ", config.data.row_tokens,
      " in whole segments of model.segment_tokens = ", segment, with);
}

}  // namespace

void check_parallel(const RunConfig& config, const Layout& layout) {
  check_rows(config, layout);
  check_segments(config, layout);
  check_shard(config, layout);
}

}  // namespace infini
