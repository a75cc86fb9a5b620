// What must hold for every BatchSource.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "data/batch.h"
#include "tensor/error.h"

namespace infini {

// Rows [first, first + rows) of a batch as a batch of their own.
inline SequenceBatch slice(const SequenceBatch& whole, std::int64_t first, std::int64_t rows) {
  const auto cut = [&](const auto& values, std::int64_t width) {
    using Values = std::decay_t<decltype(values)>;
    if (values.empty()) return Values();
    return Values(values.begin() + first * width, values.begin() + (first + rows) * width);
  };
  SequenceBatch part = whole;
  part.rows = rows;
  part.tokens = cut(whole.tokens, whole.row_tokens);
  part.targets = cut(whole.targets, whole.row_tokens);
  part.weights = cut(whole.weights, whole.row_tokens);
  part.keep = cut(whole.keep, whole.row_tokens);
  part.resets = cut(whole.resets, whole.segments);
  finish_batch(part);
  return part;
}

// Asking for rows one by one, in any order and again, gives the rows of the whole step.
inline void expect_pure(const BatchSource& source, const std::vector<std::int64_t>& steps) {
  std::vector<SequenceBatch> wholes;
  for (const std::int64_t step : steps) wholes.push_back(source.batch(step));
  for (std::size_t i = steps.size(); i-- > 0;) {
    const SequenceBatch& whole = wholes[i];
    const auto cells = static_cast<std::size_t>(whole.rows * whole.row_tokens);
    EXPECT_EQ(whole.rows, source.batch_rows());
    EXPECT_EQ(whole.segments, (whole.row_tokens + whole.segment_tokens - 1) / whole.segment_tokens);
    EXPECT_EQ(whole.tokens.size(), cells);
    EXPECT_EQ(whole.targets.size(), cells);
    EXPECT_EQ(whole.resets.size(), static_cast<std::size_t>(whole.rows * whole.segments));
    for (const std::int32_t token : whole.tokens)
      EXPECT_TRUE(token >= 0 && token < source.vocabulary());
    EXPECT_EQ(source.batch(steps[i]), whole) << "step " << steps[i];
    for (int row = source.batch_rows(); row-- > 0;)
      EXPECT_EQ(source.batch(steps[i], row, 1), slice(whole, row, 1)) << "step " << steps[i];
    EXPECT_EQ(source.batch(steps[i], 1, source.batch_rows() - 1),
              slice(whole, 1, source.batch_rows() - 1));
  }
  EXPECT_THROW(source.batch(0, 0, source.batch_rows() + 1), Error);
  EXPECT_THROW(source.batch(-1), Error);
}

}  // namespace infini
