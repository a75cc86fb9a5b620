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

// Columns [begin, begin + count) of a [B, C] table; empty stays empty.
Tensor columns(const Tensor& table, std::int64_t begin, std::int64_t count) {
  if (!table) return {};
  const auto [rows, width] = table.dims<2>();
  const std::int64_t element = bytes_of(table.dtype());
  const Tensor part = Tensor::empty({rows, count}, table.dtype());
  for (std::int64_t r = 0; r < rows; ++r)
    std::copy_n(table.raw() + (r * width + begin) * element, count * element,
                part.raw() + r * count * element);
  return part;
}

// [B, S] -> [B, P]: whether any segment of a group resets.
Tensor by_group(const Tensor& resets, std::int64_t groups) {
  if (!resets) return {};
  const auto [rows, segments] = resets.dims<2>();
  const std::int64_t each = segments / groups;
  std::vector<std::uint8_t> any(static_cast<std::size_t>(rows * groups));
  for (std::int64_t i = 0; i < rows * segments; ++i)
    any[static_cast<std::size_t>(i / each)] |= resets.data<std::uint8_t>()[i];
  return Tensor::of(any, {rows, groups});
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

Rows shared_rows_of(const SequenceBatch& batch, std::int64_t first, std::int64_t count,
                    const SegmentExchange& exchange) {
  const Rows all = rows_of(batch, first, count);
  const int groups = exchange.groups();
  check(batch.row_tokens % (groups * batch.segment_tokens) == 0, "a row of ", batch.row_tokens,
        " tokens in segments of ", batch.segment_tokens, " for ", groups, " ranks");
  const std::int64_t tokens = batch.row_tokens / groups, segments = batch.segments / groups;
  const auto cut = [&](const Tensor& table, std::int64_t width) {
    return columns(table, exchange.index() * width, width);
  };
  return {.segment_tokens = all.segment_tokens,
          .tokens = cut(all.tokens, tokens),
          .targets = cut(all.targets, tokens),
          .weights = cut(all.weights, tokens),
          .resets = cut(all.resets, segments),
          .keep = cut(all.keep, tokens),
          .exchange = &exchange,
          .group_resets = by_group(all.resets, groups)};
}

}  // namespace infini
