// Independent rows cut out of documents.
#pragma once

#include <memory>

#include "data/batch.h"
#include "data/token_store.h"

namespace infini {

// The rows of a step as the configuration gives them.
struct RowShape {
  int batch_rows;               // rows of a step
  std::int64_t row_tokens;      // T
  std::int64_t segment_tokens;  // at most T
};

// Throws ConfigError for impossible shapes, and DataError for a store without documents.
void check_shape(const RowShape& shape, const TokenStore& store);

// A document with n scored tokens gives floor(n / T) rows of T, starting at an offset that is
// random per epoch and document, so each row begins elsewhere in every epoch; a document with n < T
// gives one row, padded at its end with target -1 and keep 0. An epoch is all rows of all documents
// in random order, and epochs follow each other without a break: row `row` of step `step` is sample
// step * batch_rows + row.
//
// Promise: in one epoch every token is scored at most once, each document leaves fewer than T
// tokens out, and which ones changes by epoch. Every row starts with an empty memory.
class CropSource final : public BatchSource {
 public:
  CropSource(std::shared_ptr<const TokenStore> store, const RowShape& shape, std::uint64_t seed);

  using BatchSource::batch;
  SequenceBatch batch(std::int64_t step, int first_row, int rows) const override;
  int batch_rows() const override { return shape_.batch_rows; }
  std::int64_t steps_per_epoch()
      const override;  // rounded up: the last step also holds rows of the next epoch
  int vocabulary() const override { return store_->vocabulary(); }
  std::string description() const override;

  std::int64_t rows_per_epoch() const { return first_row_.back(); }
  std::int64_t short_documents() const {
    return short_documents_;
  }  // shorter than a row, so padded

 private:
  void fill(SequenceBatch& batch, std::int64_t row, std::int64_t sample) const;

  std::shared_ptr<const TokenStore> store_;
  RowShape shape_;
  std::uint64_t seed_;
  std::vector<std::int64_t> first_row_;  // of each document within an epoch, and the end
  std::int64_t short_documents_ = 0;
};

}  // namespace infini
