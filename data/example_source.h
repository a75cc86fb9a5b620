// Training steps of documents with summaries.
#pragma once

#include <memory>

#include "data/crops.h"
#include "data/example_rows.h"

namespace infini {

// A row is one example, its document cut where the row would be longer than shape.row_tokens; only
// its summary and the end_of_text behind it are scored. Every row starts with an empty memory.
//
// An epoch is every example once in random order. Among sorted_steps steps the examples go by
// length, and those steps come in random order again. A step's rows are as long as its longest
// example, rounded up to row_parts parts of whole segments; shorter ones are padded at their end
// with target -1 and keep 0, and the rows that the last step of an epoch lacks are all padding.
class ExampleSource final : public BatchSource {
 public:
  // Throws ConfigError where a row has no room for a document, or does not divide into its parts,
  // DataError for a store without examples.
  ExampleSource(std::shared_ptr<const ExampleStore> store, const ExamplesConfig& config,
                const RowShape& shape, std::uint64_t seed, int row_parts = 1);

  using BatchSource::batch;
  SequenceBatch batch(std::int64_t step, int first_row, int rows) const override;
  int batch_rows() const override { return shape_.batch_rows; }
  std::int64_t steps_per_epoch() const override;
  int vocabulary() const override { return rows_.store().documents()->vocabulary(); }
  std::string description() const override;

  // The examples of a step, longest first; fewer than batch_rows in an epoch's last ones.
  std::vector<std::int64_t> examples_of(std::int64_t step) const;

 private:
  std::int64_t document_limit(std::int64_t example) const;

  ExampleRows rows_;
  ExamplesConfig config_;
  RowShape shape_;
  std::uint64_t seed_;
  std::int64_t row_quantum_;           // tokens that every row is a multiple of
  std::vector<std::int64_t> lengths_;  // of each example, in tokens that are read
  std::int64_t cut_documents_ = 0;
};

}  // namespace infini
