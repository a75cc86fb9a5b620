// What tests of kernels over heads share: small layouts, and results against those of others.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tensor/ops/heads.h"

namespace infini {

constexpr double kHeadTolerance = 1e-2;  // of norms: operands of bf16 products are rounded to 4e-3

inline HeadLayout layout_of(std::int64_t tokens, int heads, int kv_heads, int width) {
  return {.batch = 1,
          .segments = 2,
          .tokens = tokens,
          .heads = heads,
          .kv_heads = kv_heads,
          .head_width = width};
}

using Values = std::vector<float>;
inline Values values_of(const Tensor& matrix, Columns columns) {
  const auto [rows, width] = matrix.dims<2>();
  const Values all = matrix.to(DType::kFloat32).to(Device::kCpu).to_vector<float>();
  Values part;
  for (std::int64_t r = 0; r < rows; ++r)
    part.insert(part.end(), all.begin() + r * width + columns.begin,
                all.begin() + r * width + columns.end);
  return part;
}

// Of norms. A NaN is not less than any tolerance.
inline double relative_error(const Values& got, const Values& expected) {
  EXPECT_EQ(got.size(), expected.size());
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < std::min(got.size(), expected.size()); ++i) {
    error += std::pow(double{got[i]} - double{expected[i]}, 2);
    norm += std::pow(double{expected[i]}, 2);
  }
  return std::sqrt(error / norm);
}

inline void expect_close(const Tensor& got, const Tensor& expected, Columns columns,
                         const char* what) {
  EXPECT_LT(relative_error(values_of(got, columns), values_of(expected, columns)), kHeadTolerance)
      << what;
}

}  // namespace infini
