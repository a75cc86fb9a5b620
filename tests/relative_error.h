// How far two results are from each other, for all tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace infini {

// |a - b| / |b| over all elements, |b| at least `least`; 0 for nothing at all.
inline double relative_error(const std::vector<double>& a, const std::vector<double>& b,
                             double least = 1e-300) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference) / std::max(std::sqrt(norm), least);
}

}  // namespace infini
