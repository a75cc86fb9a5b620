// Which rank looks after which of a list of things.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace infini {

// The owner of each, consecutive ones with one owner, so that owners have about the same total
// size: that in whose share of the total the middle of the thing lies.
std::vector<int> owners_of(std::span<const std::int64_t> sizes, int owners);

}  // namespace infini
