#include "data/characters.h"

#include <algorithm>
#include <span>
#include <vector>

#include "data/character_ranges.h"

namespace infini {

const std::uint8_t* character_kinds() {
  static const std::vector<std::uint8_t> kinds = [] {
    std::vector<std::uint8_t> table(kCodePoints + 1, 0);  // the last: bytes that are not UTF-8
    const auto set = [&](std::span<const CharacterRange> ranges, int kind) {
      for (const auto [first, last] : ranges)
        std::fill(table.begin() + first, table.begin() + last + 1, static_cast<std::uint8_t>(kind));
    };
    set(kLetterRanges, kLetter | kWordPart);
    set(kWordNumberRanges, kNumber | kWordPart);
    set(kOtherNumberRanges, kNumber);
    set(kWordMarkRanges, kWordPart);
    for (const std::uint32_t code : kSpaces) table[code] = kSpace;
    return table;
  }();
  return kinds.data();
}

Character last_character(std::string_view text) {
  for (std::size_t bytes = 1; bytes <= std::min<std::size_t>(4, text.size()); ++bytes) {
    const Character found = first_character(text.substr(text.size() - bytes));
    if (found.code != kCodePoints && found.bytes == static_cast<int>(bytes)) return found;
  }
  return {};
}

void append_character(std::string& text, std::uint32_t code) {
  const auto put = [&](std::uint32_t byte) { text += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
    return;
  }
  if (code < 0x800) {
    put(0xC0 | code >> 6);
  } else {
    if (code < 0x10000) {
      put(0xE0 | code >> 12);
    } else {
      put(0xF0 | code >> 18);
      put(0x80 | (code >> 12 & 0x3F));
    }
    put(0x80 | (code >> 6 & 0x3F));
  }
  put(0x80 | (code & 0x3F));
}

}  // namespace infini
