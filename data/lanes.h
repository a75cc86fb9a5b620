// Rows that read documents from front to back, with the memory carried from step to step.
#pragma once

#include <memory>
#include <mutex>

#include "data/batch.h"
#include "data/crops.h"
#include "data/token_store.h"

namespace infini {

// Documents are dealt to batch_rows lanes, the longest first to the emptiest lane. In every epoch a
// row reads one lane, and which one and the order of documents within it are drawn anew. A document
// starts on a segment border with resets = 1; its last segment is padded with target -1 and keep 0.
// A lane that ends before the longest one is padded to the end of the epoch, so all rows enter the
// next epoch at the same step, each with a fresh document.
//
// Promise: in one epoch every scored token of every document is scored exactly once.
// Refused with ConfigError: a row that is not a whole number of segments, more rows than documents.
class LaneSource final : public BatchSource {
 public:
  LaneSource(std::shared_ptr<const TokenStore> store, const RowShape& shape, std::uint64_t seed);

  using BatchSource::batch;
  SequenceBatch batch(std::int64_t step, int first_row, int rows) const override;
  int batch_rows() const override { return shape_.batch_rows; }
  bool carries_memory() const override { return true; }
  std::int64_t steps_per_epoch() const override { return steps_per_epoch_; }
  int vocabulary() const override { return store_->vocabulary(); }
  std::string description() const override;

  // Share of all positions of an epoch that are padding, at ends of documents and of lanes.
  double padding_share() const;

 private:
  struct Reading {  // one document of a lane in one epoch
    std::size_t document;
    std::int64_t begin;  // its first segment, counted from the start of the epoch
  };
  struct Plan {  // an epoch: the documents of each row in order
    std::int64_t epoch;
    std::vector<std::vector<Reading>> rows;
  };

  std::int64_t segments_of(std::size_t document) const;
  std::shared_ptr<const Plan> plan(std::int64_t epoch) const;
  void fill(SequenceBatch& batch, std::int64_t row, const std::vector<Reading>& readings,
            std::int64_t first_segment) const;

  std::shared_ptr<const TokenStore> store_;
  RowShape shape_;
  std::uint64_t seed_;
  std::vector<std::vector<std::size_t>> lanes_;  // documents
  std::int64_t steps_per_epoch_ = 0;

  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Plan> latest_;  // of the epoch asked for last
};

}  // namespace infini
