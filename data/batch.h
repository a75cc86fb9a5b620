// What a training step is given, and where it comes from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace infini {

// B rows of T tokens, cut into S segments; the last segment is shorter when segment_tokens does not
// divide T.
struct SequenceBatch {
  std::int64_t rows = 0;            // B
  std::int64_t segments = 0;        // S = ceil(row_tokens / segment_tokens)
  std::int64_t segment_tokens = 0;  // tokens of a full segment
  std::int64_t row_tokens = 0;      // T

  std::vector<std::int32_t> tokens;   // [B, T] row-major
  std::vector<std::int32_t> targets;  // [B, T] the token that follows; -1 is not scored
  std::vector<float> weights;         // [B, T] loss weight of each target; empty: all 1
  std::vector<std::uint8_t> resets;   // [B, S] 1: the row's memory is emptied before segment s
  std::vector<std::uint8_t> keep;  // [B, T] 0: padding, writes nothing into memory; empty: all kept

  std::int64_t scored_tokens = 0;  // targets that are not -1
  double total_weight = 0;         // sum of the weights of the scored targets

  bool operator==(const SequenceBatch&) const = default;
};

// An empty batch of the given shape: every token `padding`, no target, nothing kept, no reset.
SequenceBatch padded_batch(std::int64_t rows, std::int64_t row_tokens, std::int64_t segment_tokens,
                           std::int32_t padding);

// Drops `keep` when everything is kept, and sets scored_tokens and total_weight from the arrays.
void finish_batch(SequenceBatch& batch);

// A stream of training steps. batch() is a pure function of (config, seed, step, row): it may be
// called for any step in any order and from any thread, so resuming is exact and ranks simply take
// different rows.
class BatchSource {
 public:
  virtual ~BatchSource() = default;

  // Rows [first_row, first_row + rows) of the batch_rows() rows of this step.
  virtual SequenceBatch batch(std::int64_t step, int first_row, int rows) const = 0;
  SequenceBatch batch(std::int64_t step) const { return batch(step, 0, batch_rows()); }

  virtual int batch_rows() const = 0;
  // Whether row b of step s + 1 continues row b of step s, with the memory it left behind.
  virtual bool carries_memory() const { return false; }
  // Steps after which every row of the data has come once; 0: generated data, there is no epoch.
  virtual std::int64_t steps_per_epoch() const = 0;
  virtual int vocabulary() const = 0;
  virtual std::string description() const = 0;  // one or two lines for the log

 protected:
  // Throws unless step >= 0 and [first_row, first_row + rows) lies inside the step.
  void check_rows(std::int64_t step, int first_row, int rows) const;
};

}  // namespace infini
