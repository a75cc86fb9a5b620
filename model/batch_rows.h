// Rows of every batch row, [B, rows, C], put one after the other and taken apart, on the tape.
#pragma once

#include <vector>

#include "tensor/ops/columns.h"

namespace infini {

// As a matrix with a row for each batch row.
inline Tensor as_matrix(const Tensor& rows) {
  const auto [batch, count, width] = rows.dims<3>();
  return rows.reshape({batch, count * width});
}

inline Tensor join_rows(const std::vector<Tensor>& parts) {
  std::vector<Tensor> matrices;
  for (const Tensor& part : parts) matrices.push_back(as_matrix(part));
  const auto [batch, count, width] = parts.front().dims<3>();
  const Tensor joined = join_columns(matrices);
  return joined.reshape({batch, joined.shape()[1] / width, width});
}

inline Tensor take_rows(const Tensor& rows, std::int64_t first, std::int64_t taken) {
  const auto [batch, count, width] = rows.dims<3>();
  return take_columns(as_matrix(rows), {first * width, (first + taken) * width})
      .reshape({batch, taken, width});
}

}  // namespace infini
