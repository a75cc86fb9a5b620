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

std::vector<FlatPiece> pieces_of(std::span<const std::int64_t> sizes, std::span<const int> owners) {
  std::vector<FlatPiece> pieces;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const std::int64_t end = begin + sizes[i];
    if (!pieces.empty() && pieces.back().owner == owners[i])
      pieces.back().end = end;
    else
      pieces.push_back({.begin = begin, .end = end, .owner = owners[i]});
    begin = end;
  }
  return pieces;
}

}  // namespace infini
