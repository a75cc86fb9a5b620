// Which rank looks after which of a list of things.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace infini {

// The owner of each, consecutive ones with one owner, so that owners have about the same total
// size: that in whose share of the total the middle of the thing lies.
std::vector<int> owners_of(std::span<const std::int64_t> sizes, int owners);

// Elements [begin, end) of a flat buffer that belong together.
struct FlatPiece {
  std::int64_t begin = 0, end = 0;
  int owner = kEveryone;

  static constexpr int kEveryone = -1;
  std::int64_t size() const { return end - begin; }
};

// The things side by side in a buffer, those with one owner as one piece.
std::vector<FlatPiece> pieces_of(std::span<const std::int64_t> sizes, std::span<const int> owners);

}  // namespace infini
