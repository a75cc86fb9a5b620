// Random numbers as a pure function: no state, so that a run repeats, resumes and is cut into ranks
// exactly.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace infini {

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3; SC 2011).
// Four 32-bit random words for each (key, counter).
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 2> key,
                                              std::array<std::uint32_t, 4> counter) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
  }
  return counter;
}

// Names one stream of random numbers: what it is for (site) and where in the run it stands.
// Two keys that differ in any member give unrelated streams.
struct RandomKey {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::uint32_t site = 0;

  // Word `index` of the stream, uniform over 64 bits.
  constexpr std::uint64_t bits(std::uint64_t index) const {
    // A first round folds (step, site) into a key of its own, so that index has a whole counter to
    // itself.
    const auto folded =
        philox({static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)},
               {static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(step >> 32), site,
                0x696E6669});
    const auto words = philox({folded[0], folded[1]},
                              {static_cast<std::uint32_t>(index),
                               static_cast<std::uint32_t>(index >> 32), folded[2], folded[3]});
    return (std::uint64_t{words[0]} << 32) | words[1];
  }

  // Uniform in [0, 1), with 53 random bits.
  constexpr double uniform(std::uint64_t index) const {
    return static_cast<double>(bits(index) >> 11) * 0x1p-53;
  }

  // Uniform integer in [0, bound); bound > 0. The bias is below bound / 2^64.
  constexpr std::uint64_t below(std::uint64_t index, std::uint64_t bound) const {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>((static_cast<Wide>(bits(index)) * bound) >> 64);
  }

  // Normal with mean 0 and deviation 1, by Box and Muller.
  double normal(std::uint64_t index) const {
    const std::uint64_t word = bits(index);
    const double radius = (static_cast<double>(word >> 32) + 1) * 0x1p-32;  // in (0, 1]
    const double angle = static_cast<double>(word & 0xFFFFFFFF) * 0x1p-32;
    return std::sqrt(-2 * std::log(radius)) * std::cos(2 * std::numbers::pi * angle);
  }
};

}  // namespace infini
