#include "trainer/stored_type.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>

#include "tensor/dtype.h"
#include "tensor/error.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

constexpr std::int64_t kGrain = 1 << 16;

float from_half(std::uint16_t bits) {
  const std::uint32_t sign = std::uint32_t{bits & 0x8000u} << 16, fraction = bits & 0x3FFu;
  const std::uint32_t exponent = bits >> 10 & 0x1Fu;
  if (exponent == 0) {  // zero, or a multiple of the smallest number
    const float size = std::ldexp(static_cast<float>(fraction), -24);
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(size) | sign);
  }
  const std::uint32_t wide = exponent == 0x1F ? 0xFFu : exponent + 127 - 15;
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

std::uint16_t to_half(float value) {
  const auto word = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(word >> 16 & 0x8000);
  const std::uint32_t size = word & 0x7FFFFFFF;
  if (size > 0x7F800000)  // not a number; its upper bits, and one that says so
    return static_cast<std::uint16_t>(sign | 0x7C00 | (size >> 13 & 0x3FF) |
                                      ((size >> 13 & 0x3FF) == 0));
  if (size < 0x38800000) {  // below 2^-14: multiples of 2^-24
    const float magnitude = std::bit_cast<float>(size);
    return static_cast<std::uint16_t>(
        sign | static_cast<std::uint16_t>(std::nearbyint(std::ldexp(magnitude, 24))));
  }
  const std::uint32_t rounded = size + 0xFFF + (size >> 13 & 1);
  if (rounded >= 0x47800000) return static_cast<std::uint16_t>(sign | 0x7C00);
  return static_cast<std::uint16_t>(sign | (rounded - (std::uint32_t{127 - 15} << 23)) >> 13);
}

std::uint16_t to_bf16(float value) {
  const auto word = std::bit_cast<std::uint32_t>(value);
  // What came from bf16 goes back as it was, numbers that are none as well.
  return (word & 0xFFFF) == 0 ? static_cast<std::uint16_t>(word >> 16) : BFloat16(value).bits;
}

template <class Convert>
bool shorten(std::span<const float> from, std::span<std::byte> to, std::uint16_t infinity,
             Convert convert) {
  std::atomic<bool> fits = true;
  parallel_ranges(static_cast<std::int64_t>(from.size()), kGrain,
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t i = begin; i < end; ++i) {
                      const std::uint16_t bits = convert(from[i]);
                      std::memcpy(to.data() + 2 * i, &bits, 2);
                      if ((bits & 0x7FFF) == infinity && std::isfinite(from[i])) fits = false;
                    }
                  });
  return fits;
}

template <class Convert>
void lengthen(std::span<const std::byte> from, std::span<float> to, Convert convert) {
  parallel_ranges(static_cast<std::int64_t>(to.size()), kGrain,
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t i = begin; i < end; ++i) {
                      std::uint16_t bits;
                      std::memcpy(&bits, from.data() + 2 * i, 2);
                      to[i] = convert(bits);
                    }
                  });
}

}  // namespace

void to_floats(StoredType type, std::span<const std::byte> from, std::span<float> to) {
  check(from.size() == to.size() * static_cast<std::size_t>(bytes_of(type)),
        "to_floats: ", from.size(), " bytes of ", name_of(type), " for ", to.size(), " numbers");
  if (type == StoredType::kFp32) {
    if (!from.empty()) std::memcpy(to.data(), from.data(), from.size());
  } else if (type == StoredType::kBf16) {
    lengthen(from, to,
             [](std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); });
  } else {
    lengthen(from, to, from_half);
  }
}

bool from_floats(StoredType type, std::span<const float> from, std::span<std::byte> to) {
  check(to.size() == from.size() * static_cast<std::size_t>(bytes_of(type)),
        "from_floats: ", to.size(), " bytes of ", name_of(type), " for ", from.size(), " numbers");
  if (type == StoredType::kFp32) {
    if (!from.empty()) std::memcpy(to.data(), from.data(), to.size());
    return true;
  }
  return type == StoredType::kBf16 ? shorten(from, to, 0x7F80, to_bf16)
                                   : shorten(from, to, 0x7C00, to_half);
}

}  // namespace infini
