#include "data/permutation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace infini {
namespace {

std::vector<std::uint64_t> whole(const RandomKey& key, std::uint64_t count) {
  std::vector<std::uint64_t> order;
  for (std::uint64_t place = 0; place < count; ++place)
    order.push_back(permuted(key, place, count));
  return order;
}

TEST(Permutation, HoldsEveryIndexOnce) {
  for (std::uint64_t count = 1; count < 300; ++count) {
    auto order = whole({count, 3, 4}, count);
    std::sort(order.begin(), order.end());
    for (std::uint64_t i = 0; i < count; ++i) ASSERT_EQ(order[i], i) << count;
  }
}

TEST(Permutation, DependsOnTheKeyAndPutsAllIndicesEverywhere) {
  EXPECT_NE(whole({1, 0, 0}, 100), whole({1, 1, 0}, 100));
  int seen[5][5] = {};
  for (std::uint64_t epoch = 0; epoch < 5000; ++epoch) {
    const auto order = whole({9, epoch, 0}, 5);
    for (std::size_t place = 0; place < 5; ++place) ++seen[place][order[place]];
  }
  for (const auto& place : seen)
    for (const int count : place) EXPECT_NEAR(count, 1000, 180);  // six deviations
}

}  // namespace
}  // namespace infini
