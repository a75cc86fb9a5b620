#include "trainer/rows.h"

namespace infini {
namespace {

// A table with `width` numbers for each row; empty stays empty.
template <class T>
Tensor cut(const std::vector<T>& table, std::int64_t width, std::int64_t first,
           std::int64_t count) {
  if (table.empty()) return {};
  return Tensor::of(std::span(table).subspan(first * width, count * width), {count, width});
}

}  // namespace

Rows rows_of(const SequenceBatch& batch, std::int64_t first, std::int64_t count) {
  return {.segment_tokens = batch.segment_tokens,
          .tokens = cut(batch.tokens, batch.row_tokens, first, count),
          .targets = cut(batch.targets, batch.row_tokens, first, count),
          .weights = cut(batch.weights, batch.row_tokens, first, count),
          .resets = cut(batch.resets, batch.segments, first, count),
          .keep = cut(batch.keep, batch.row_tokens, first, count)};
}

}  // namespace infini
