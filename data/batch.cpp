#include "data/batch.h"

#include <algorithm>
#include <numeric>

#include "tensor/error.h"

namespace infini {

SequenceBatch padded_batch(std::int64_t rows, std::int64_t row_tokens, std::int64_t segment_tokens,
                           std::int32_t padding) {
  SequenceBatch batch;
  batch.rows = rows;
  batch.segments = (row_tokens + segment_tokens - 1) / segment_tokens;
  batch.segment_tokens = segment_tokens;
  batch.row_tokens = row_tokens;
  const auto cells = static_cast<std::size_t>(rows * row_tokens);
  batch.tokens.assign(cells, padding);
  batch.targets.assign(cells, -1);
  batch.keep.assign(cells, 0);
  batch.resets.assign(static_cast<std::size_t>(rows * batch.segments), 0);
  return batch;
}

void finish_batch(SequenceBatch& batch) {
  if (std::all_of(batch.keep.begin(), batch.keep.end(), [](auto kept) { return kept != 0; }))
    batch.keep.clear();
  batch.scored_tokens = std::count_if(batch.targets.begin(), batch.targets.end(),
                                      [](std::int32_t target) { return target >= 0; });
  batch.total_weight = static_cast<double>(batch.scored_tokens);
  if (batch.weights.empty()) return;
  batch.total_weight = 0;
  for (std::size_t i = 0; i < batch.targets.size(); ++i)
    if (batch.targets[i] >= 0) batch.total_weight += double{batch.weights[i]};
}

void BatchSource::check_rows(std::int64_t step, int first_row, int rows) const {
  check(step >= 0 && first_row >= 0 && rows > 0 && first_row + rows <= batch_rows(),
        "batch: rows [", first_row, ", ", first_row + rows, ") of step ", step,
        " asked, a step has rows [0, ", batch_rows(), ")");
}

}  // namespace infini
