#include "trainer/rows.h"

#include <algorithm>

namespace infini {
namespace {

// A table with `width` numbers for each row; empty stays empty.
template <class T>
Tensor cut(const std::vector<T>& table, std::int64_t width, std::int64_t first,
           std::int64_t count) {
  if (table.empty()) return {};
  return Tensor::of(std::span(table).subspan(first * width, count * width), {count, width});
}

// The same; empty also where every number of these rows is 1, which is what empty means.
template <class T>
Tensor cut_unless_ones(const std::vector<T>& table, std::int64_t width, std::int64_t first,
                       std::int64_t count) {
  if (table.empty()) return {};
  const auto part = std::span(table).subspan(first * width, count * width);
  const bool ones = std::ranges::all_of(part, [](T value) { return value == T{1}; });
  return ones ? Tensor{} : cut(table, width, first, count);
}

}  // namespace

Rows rows_of(const SequenceBatch& batch, std::int64_t first, std::int64_t count) {
  return {.segment_tokens = batch.segment_tokens,
          .tokens = cut(batch.tokens, batch.row_tokens, first, count),
          .targets = cut(batch.targets, batch.row_tokens, first, count),
          .weights = cut_unless_ones(batch.weights, batch.row_tokens, first, count),
          .resets = cut(batch.resets, batch.segments, first, count),
          .keep = cut_unless_ones(batch.keep, batch.row_tokens, first, count)};
}

}  // namespace infini
