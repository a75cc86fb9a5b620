// A random order of [0, count) that is computed place by place: no table, any place at any time.
#pragma once

#include <bit>
#include <cstdint>

#include "tensor/random.h"

namespace infini {

// What stands at `place` of the permutation that `key` names. For a fixed key and count it is a
// bijection of [0, count). A Feistel network over the next even power of two, applied again while
// its result is not below count.
constexpr std::uint64_t permuted(const RandomKey& key, std::uint64_t place, std::uint64_t count) {
  if (count <= 1) return 0;
  const int half_bits = (std::bit_width(count - 1) + 1) / 2;
  const std::uint64_t mask = (std::uint64_t{1} << half_bits) - 1;
  do {
    std::uint64_t left = place >> half_bits, right = place & mask;
    for (std::uint64_t round = 0; round < 6; ++round) {
      const std::uint64_t next = left ^ (key.bits(round << 40 | right) & mask);
      left = right;
      right = next;
    }
    place = left << half_bits | right;
  } while (place >= count);
  return place;
}

}  // namespace infini
