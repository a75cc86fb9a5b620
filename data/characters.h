// What a character is, as the regular expressions of tokenizers ask: \p{L}, \p{N}, \s and \w.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "data/units.h"

namespace infini {

enum CharacterKind : std::uint8_t {  // bits
  kLetter = 1,                       // \p{L}
  kNumber = 2,                       // \p{N}
  kSpace = 4,                        // \s
  kWordPart = 8,                     // \w
};

constexpr std::uint32_t kCodePoints = 0x110000;

// The bits of every code point.
const std::uint8_t* character_kinds();

struct Character {
  std::uint32_t code = kCodePoints;  // kCodePoints: a byte that is not UTF-8
  int bytes = 1;
};

// The character at the start of `text`, which must not be empty.
inline Character first_character(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(text[i]) & 0xFF; };
  const auto low = [&](std::size_t i) { return byte(i) & 0x3F; };
  switch (utf8_length(text)) {
    case 1:
      return {byte(0), 1};
    case 2:
      return {(byte(0) & 0x1F) << 6 | low(1), 2};
    case 3:
      return {(byte(0) & 0x0F) << 12 | low(1) << 6 | low(2), 3};
    case 4:
      return {(byte(0) & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3), 4};
    default:
      return {};
  }
}

// The character at the end of `text`, which must not be empty.
Character last_character(std::string_view text);

// Writes a code point as UTF-8.
void append_character(std::string& text, std::uint32_t code);

}  // namespace infini
