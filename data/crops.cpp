#include "data/crops.h"

#include <algorithm>

#include "data/permutation.h"
#include "data/random_sites.h"
#include "tensor/error.h"

namespace infini {

void check_shape(const RowShape& shape, const TokenStore& store) {
  check<ConfigError>(shape.batch_rows >= 1, "data.batch_rows must be at least 1, got ",
                     shape.batch_rows);
  check<ConfigError>(shape.segment_tokens >= 1, "segment_tokens must be at least 1, got ",
                     shape.segment_tokens);
  check<ConfigError>(shape.segment_tokens <= shape.row_tokens, "a segment of ",
                     shape.segment_tokens, " tokens is longer than a row: data.row_tokens is ",
                     shape.row_tokens);
  check<DataError>(!store.documents().empty(), store.path().string(),
                   ": the store holds no documents");
}

CropSource::CropSource(std::shared_ptr<const TokenStore> store, const RowShape& shape,
                       std::uint64_t seed)
    : store_(std::move(store)), shape_(shape), seed_(seed) {
  check_shape(shape_, *store_);
  first_row_.push_back(0);
  for (const StoredDocument& document : store_->documents()) {
    const std::int64_t rows = document.scored_tokens() / shape_.row_tokens;
    if (rows == 0) ++short_documents_;
    first_row_.push_back(first_row_.back() + std::max<std::int64_t>(rows, 1));
  }
}

std::int64_t CropSource::steps_per_epoch() const {
  return (rows_per_epoch() + shape_.batch_rows - 1) / shape_.batch_rows;
}

void CropSource::fill(SequenceBatch& batch, std::int64_t row, std::int64_t sample) const {
  const auto epoch = static_cast<std::uint64_t>(sample / rows_per_epoch());
  const auto place = static_cast<std::uint64_t>(sample % rows_per_epoch());
  const auto index = static_cast<std::int64_t>(permuted(
      {seed_, epoch, kSiteCropOrder}, place, static_cast<std::uint64_t>(rows_per_epoch())));

  const auto after = std::upper_bound(first_row_.begin(), first_row_.end(), index);
  const auto d = static_cast<std::size_t>(after - first_row_.begin()) - 1;
  const StoredDocument& document = store_->documents()[d];
  const std::int64_t scored = document.scored_tokens();
  const std::int64_t count = std::min(scored, shape_.row_tokens);

  // The document's rows lie side by side from the offset on.
  const std::int64_t spare = scored - (first_row_[d + 1] - first_row_[d]) * count;
  const RandomKey offsets{seed_, epoch, kSiteCropOffset};
  const auto offset =
      static_cast<std::int64_t>(offsets.below(d, static_cast<std::uint64_t>(spare) + 1));
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count) + 1);
  store_->read(document.begin + offset + (index - first_row_[d]) * count, tokens);

  const std::int64_t begin = row * shape_.row_tokens;
  std::copy(tokens.begin(), tokens.end() - 1, batch.tokens.begin() + begin);
  std::copy(tokens.begin() + 1, tokens.end(), batch.targets.begin() + begin);
  std::fill_n(batch.keep.begin() + begin, count, std::uint8_t{1});
  batch.resets[static_cast<std::size_t>(row * batch.segments)] = 1;
}

SequenceBatch CropSource::batch(std::int64_t step, int first_row, int rows) const {
  check_rows(step, first_row, rows);
  SequenceBatch batch = padded_batch(rows, shape_.row_tokens, shape_.segment_tokens,
                                     store_->tokenizer().end_of_text());
  for (int r = 0; r < rows; ++r) fill(batch, r, step * shape_.batch_rows + first_row + r);
  finish_batch(batch);
  return batch;
}

std::string CropSource::description() const {
  std::string line = text("crops of ", shape_.row_tokens, " tokens from ",
                          store_->documents().size(), " documents of ", store_->path().string(),
                          ": ", rows_per_epoch(), " rows an epoch, ", shape_.batch_rows, " a step");
  if (short_documents_ > 0)
    line += text("; ", short_documents_, " documents are shorter than a row and are padded");
  return line;
}

}  // namespace infini
