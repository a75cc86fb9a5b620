#include "distributed/owners.h"

#include <algorithm>
#include <numeric>

namespace infini {

std::vector<int> owners_of(std::span<const std::int64_t> sizes, int owners) {
  const std::int64_t total =
      std::max<std::int64_t>(1, std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}));
  std::vector<int> result;
  std::int64_t begin = 0;
  for (const std::int64_t size : sizes) {
    const double middle = static_cast<double>(begin) + static_cast<double>(size) / 2;
    result.push_back(
        std::min(owners - 1, static_cast<int>(middle * owners / static_cast<double>(total))));
    begin += size;
  }
  return result;
}

}  // namespace infini
