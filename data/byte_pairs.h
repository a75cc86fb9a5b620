// Byte-pair encoding of one piece of text.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace infini {

struct Merge {
  std::int32_t left = 0, right = 0, merged = 0;  // token ids
};

// Merges the pair of neighbours that comes first in the list of merges, the leftmost of equals,
// until there is none. n log n in the length of the piece.
class BytePairs {
 public:
  // `bytes` are the tokens of single bytes. No pair may stand in `merges` twice.
  BytePairs(const std::array<std::int32_t, 256>& bytes, const std::vector<Merge>& merges);

  // Appends the tokens of `piece`.
  void encode(std::string_view piece, std::vector<std::int32_t>& tokens) const;

 private:
  struct Entry {
    std::int32_t left = -1, right = 0;  // left < 0: a free slot
    std::int32_t rank = 0, merged = 0;
  };
  const Entry* find(std::int32_t left, std::int32_t right) const;
  std::size_t slot_of(std::int32_t left, std::int32_t right) const;

  std::array<std::int32_t, 256> bytes_{};
  std::vector<Entry> table_;  // open addressing, at most half full
  int shift_ = 64;
};

}  // namespace infini
