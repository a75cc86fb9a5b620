#include "trainer/parallel_checks.h"

#include <algorithm>

#include "tensor/enum_names.h"

namespace infini {

namespace {

void check_rows(const RunConfig& config, const Axes& axes) {
  const int accumulate = config.train.accumulate;
  check<ConfigError>(config.data.batch_rows % (axes.data * accumulate) == 0,
                     "data.batch_rows = ", config.data.batch_rows,
                     " is not divisible by parallel.data = ", axes.data,
                     " times train.accumulate = ", accumulate);
  const int leaves = config.parallel.row_leaves;
  if (leaves == 0) return;
  check<ConfigError>(leaves % axes.data == 0, "parallel.row_leaves = ", leaves,
                     " is not divisible by parallel.data = ", axes.data);
  check<ConfigError>(config.data.batch_rows % leaves == 0,
                     "data.batch_rows = ", config.data.batch_rows,
                     " is not divisible by parallel.row_leaves = ", leaves);
  check<ConfigError>(accumulate == 1, "train.accumulate = ", accumulate,
                     ", but parallel.row_leaves = ", leaves,
                     " cuts the rows of a step already; leave one of them out");
  check<ConfigError>(axes.segments == 1 || leaves == axes.data, "parallel.row_leaves = ", leaves,
                     ", but with parallel.segment = ", axes.segments,
                     " a rank adds one group of rows: it must be parallel.data = ", axes.data);
}

void check_row_length(const RunConfig& config, const char* key, std::int64_t tokens, int groups,
                      const char* by) {
  const std::int64_t segment = config.model.segment_tokens;
  check<ConfigError>(tokens % (segment * groups) == 0, key, " is a row of ", tokens,
                     " tokens, which does not divide into ", by, " = ", groups,
                     " parts of whole segments of model.segment_tokens = ", segment);
}

void check_segments(const RunConfig& config, const Axes& axes) {
  const int leaves = config.parallel.segment_leaves;
  check<ConfigError>(leaves == 0 || axes.segments == 1 || axes.segments == leaves,
                     "parallel.segment_leaves = ", leaves,
                     " and parallel.segment = ", axes.segments,
                     ": the latter must be 1 or the same");
  check<ConfigError>(leaves == 0 || config.parallel.row_leaves > 0,
                     "parallel.segment_leaves = ", leaves,
                     " needs parallel.row_leaves, 1 for all rows together");
  const int groups = std::max(leaves, axes.segments);
  if (groups <= 1) return;
  const char* const by = leaves > 0 ? "parallel.segment_leaves" : "parallel.segment";
  check<ConfigError>(config.train.schedule == RowSchedule::kParallel, by, " = ", groups,
                     " shares the segments of a row, which train.schedule = streaming would take "
                     "one after the other; train.recompute_blocks=true needs less memory");
  if (config.data.source != DataKind::kPasskey)
    check_row_length(config, "data.row_tokens", config.data.row_tokens, groups, by);
  else
    for (const std::int64_t tokens : config.data.passkey.row_lengths(config.model.segment_tokens))
      check_row_length(config, "data.passkey.row_segments", tokens, groups, by);
}

void check_architecture(const RunConfig& config, const Axes& axes) {
  if (config.model.architecture == Architecture::kInfini) return;
  const auto alone = [&](const char* key, int count, const char* why) {
    check<ConfigError>(count <= 1, key, " = ", count,
                       ", but model.architecture = ", config.model.architecture_name(), " ", why);
  };
  alone("parallel.tensor", axes.tensors, "has blocks that ranks cannot share");
  alone("parallel.segment", axes.segments, "takes the segments of a row on one rank");
  alone("parallel.segment_leaves", config.parallel.segment_leaves,
        "takes the segments of a row together");
}

void check_tensors(const RunConfig& config, const Axes& axes) {
  const ModelConfig& model = config.model;
  const auto divides = [&](const char* key, int count) {
    check<ConfigError>(count % axes.tensors == 0, key, " = ", count,
                       " is not divisible by parallel.tensor = ", axes.tensors);
  };
  divides("model.heads", model.heads);
  divides("model.kv_heads", model.key_value_heads());
  divides("model.feed_forward", model.inner_width());
  check<ConfigError>(model.vocabulary % axes.tensors == 0, "model.vocabulary = ", model.vocabulary,
                     " is not divisible by parallel.tensor = ", axes.tensors,
                     "; it may be larger than that of the data");
}

// Ranks that divide the gradients sum those of each backward pass before the next: a tree is then
// over one pass of each rank.
void check_shard(const RunConfig& config, const Axes& axes) {
  const ParallelConfig& parallel = config.parallel;
  check<ConfigError>(parallel.shard != Shard::kParameters || config.train.recompute_blocks,
                     "parallel.shard = parameters gives a block's values back when the block has "
                     "run and needs train.recompute_blocks = true, got false");
  if (parallel.shard < Shard::kGradients || axes.data * axes.segments == 1) return;
  if (parallel.row_leaves == 0) return;
  const std::string with =
      text(" with parallel.shard = ", name_of(parallel.shard),
           ", which sums the gradients of each backward pass over the ranks by itself");
  check<ConfigError>(parallel.row_leaves == axes.data,
                     "parallel.row_leaves = ", parallel.row_leaves,
                     " must be 0 or parallel.data = ", axes.data, with);
  check<ConfigError>(parallel.segment_leaves == 0 || parallel.segment_leaves == axes.segments,
                     "parallel.segment_leaves = ", parallel.segment_leaves,
                     " must be 0 or parallel.segment = ", axes.segments, with);
  check<ConfigError>(config.train.schedule == RowSchedule::kParallel,
                     "parallel.row_leaves = ", parallel.row_leaves,
                     " needs train.schedule = parallel", with);
  check<ConfigError>(!config.model.has_memory_tokens(),
                     "parallel.row_leaves = ", parallel.row_leaves,
                     " must be 0 where model.architecture = ", config.model.architecture_name(),
                     " runs a block once for each segment", with);
  const std::int64_t segment = config.model.segment_tokens;
  check<ConfigError>(
      config.data.source == DataKind::kPasskey || config.data.row_tokens % segment == 0,
      "parallel.row_leaves = ", parallel.row_leaves,
      " needs data.row_tokens = ", config.data.row_tokens,
      " in whole segments of model.segment_tokens = ", segment, with);
}

}  // namespace

void check_parallel(const RunConfig& config, const Axes& axes) {
  check_rows(config, axes);
  check_architecture(config, axes);
  check_segments(config, axes);
  check_tensors(config, axes);
  check_shard(config, axes);
}

}  // namespace infini
