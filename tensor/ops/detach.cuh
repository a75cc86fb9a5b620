// Where gradients stop between segments, as a kernel takes it: a bit a segment among its arguments,
// so that nothing waits for a copy.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/error.h"

namespace infini {

struct Detach {
  static constexpr int kMost = 4096;
  std::uint32_t words[kMost / 32] = {};

  __device__ bool before(std::int64_t segment) const {
    return words[segment / 32] >> segment % 32 & 1;
  }
};

// Of ScanBorders::detach.
inline Detach detach_bits(const std::vector<std::uint8_t>& marks) {
  check(marks.size() <= Detach::kMost, "scan: gradients are cut in a row of ", marks.size(),
        " segments, at most ", +Detach::kMost);
  Detach detach;
  for (std::size_t s = 0; s < marks.size(); ++s)
    if (marks[s]) detach.words[s / 32] |= 1u << s % 32;
  return detach;
}

}  // namespace infini
