// Cuts text into the units that a tokenizer may treat one by one.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

namespace infini {

// Length in bytes of the well-formed UTF-8 character at the start of `text`, 0 when there is none
// (Unicode 15, table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF).
inline int utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto follows = [&](std::size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned first = byte(0), second = byte(1);
  if (text.empty()) return 0;
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if (first == 0xE0 && second < 0xA0) return 0;
    if (first == 0xED && second > 0x9F) return 0;
    return follows(1) && follows(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (first == 0xF0 && second < 0x90) return 0;
    if (first == 0xF4 && second > 0x8F) return 0;
    return follows(1) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

// Whether all of `text` is well-formed UTF-8.
inline bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t high = static_cast<std::size_t>(
        std::find_if(text.begin(), text.end(), [](char c) { return c & 0x80; }) - text.begin());
    text.remove_prefix(high);
    const int length = utf8_length(text);
    if (length == 0) return text.empty();
    text.remove_prefix(static_cast<std::size_t>(length));
  }
  return true;
}

inline constexpr std::string_view kSpaceMark =
    "\xE2\x96\x81";  // U+2581, SentencePiece's sign for a space

enum class UnitKind {
  kBreaks,  // a run of \n \t \r \v \f
  kWord,    // spaces, then characters that are neither space nor break; one of both may be missing
  kRaw,     // one byte that must not reach SentencePiece: malformed UTF-8, NUL, or a byte of U+2581
};

struct Unit {
  UnitKind kind;
  std::string_view text;
};

// The unit at the start of `text`, which must not be empty.
inline Unit first_unit(std::string_view text) {
  enum : std::uint8_t { kOther, kSpace, kBreak, kNul, kHigh };
  static constexpr auto classes = [] {
    std::array<std::uint8_t, 256> table{};
    for (int c = 128; c < 256; ++c) table[static_cast<std::size_t>(c)] = kHigh;
    for (const unsigned char c : {'\n', '\t', '\r', '\v', '\f'}) table[c] = kBreak;
    table[' '] = kSpace;
    table[0] = kNul;
    return table;
  }();
  const auto at = [&](std::size_t i) { return classes[static_cast<unsigned char>(text[i])]; };

  std::size_t end = 0;
  if (at(0) == kBreak) {
    while (end < text.size() && at(end) == kBreak) ++end;
    return {UnitKind::kBreaks, text.substr(0, end)};
  }
  while (end < text.size() && at(end) == kSpace) ++end;
  while (end < text.size()) {
    const std::uint8_t kind = at(end);
    if (kind == kOther) {
      ++end;
    } else if (kind == kHigh) {
      const std::string_view rest = text.substr(end);
      const int length = utf8_length(rest);
      if (length == 0 || rest.starts_with(kSpaceMark)) break;
      end += static_cast<std::size_t>(length);
    } else {
      break;
    }
  }
  if (end > 0) return {UnitKind::kWord, text.substr(0, end)};
  return {UnitKind::kRaw, text.substr(0, 1)};
}

}  // namespace infini
