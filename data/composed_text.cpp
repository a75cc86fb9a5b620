#include "data/composed_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "data/character_ranges.h"
#include "data/characters.h"

namespace infini {
namespace {

constexpr int kLongestDecomposition = 32;  // Unicode's is 4 for canonical ones

// Appends the full canonical decomposition of a character.
void decompose(std::uint32_t code, std::vector<utf8proc_int32_t>& out) {
  utf8proc_int32_t parts[kLongestDecomposition];
  int boundary = 0;
  const auto count = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(code), parts, kLongestDecomposition,
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), &boundary);
  if (count <= 0 || count > kLongestDecomposition) {
    out.push_back(static_cast<utf8proc_int32_t>(code));
  } else {
    out.insert(out.end(), parts, parts + count);
  }
}

int combining_class(utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; }

// Puts decomposed characters into canonical order and composes them.
void compose(std::vector<utf8proc_int32_t>& codes) {
  for (auto begin = codes.begin(); begin != codes.end();) {
    if (combining_class(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end =
        std::find_if(begin, codes.end(), [](auto code) { return combining_class(code) == 0; });
    std::stable_sort(begin, end,
                     [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
  const auto count =
      utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  codes.resize(static_cast<std::size_t>(std::max<utf8proc_ssize_t>(count, 0)));
}

// What later versions, up to Unicode 16, would reorder, decompose or compose.
constexpr CharacterRange kAfterUnicode9[] = {
    {0x7FD, 0x7FD},     {0x897, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x105C9, 0x105C9},
    {0x105D2, 0x105E4}, {0x10D24, 0x10D27}, {0x10D69, 0x10D6D}, {0x10EAB, 0x10EAC},
    {0x10EFC, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070},
    {0x1133B, 0x1133B}, {0x11380, 0x113FF}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
    {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
    {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x11F5A, 0x11F5A},
    {0x16100, 0x1613F}, {0x16D40, 0x16D7F}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F},
    {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
    {0x1E5EE, 0x1E5EF}};

enum Role : std::uint8_t {
  kStays,    // as it is whatever stands before it: text can be cut in front of it
  kChanges,  // it may change or combine with what stands before it
  kApart,    // nothing combines with it
};

// The role of every code point, and of bytes that are not UTF-8.
const std::vector<Role>& roles() {
  static const std::vector<Role> table = [] {
    std::vector<Role> found(kCodePoints + 1, kStays);
    std::vector<utf8proc_int32_t> codes;
    for (std::uint32_t code = 0; code < kCodePoints; ++code) {
      const auto self = static_cast<utf8proc_int32_t>(code);
      if (combining_class(self) != 0) found[code] = kChanges;
      codes.clear();
      decompose(code, codes);
      for (std::size_t i = 1; i < codes.size(); ++i)
        found[static_cast<std::size_t>(codes[i])] = kChanges;
      if (codes.size() == 1 && codes[0] == self) continue;
      compose(codes);
      if (codes.size() != 1 || codes[0] != self) found[code] = kChanges;
    }
    for (const auto [first, last] : kAfterUnicode9)
      std::fill(found.begin() + first, found.begin() + last + 1, kApart);
    found[kCodePoints] = kApart;
    return found;
  }();
  return table;
}

}  // namespace

std::string_view composed_text(std::string_view text, std::string& storage) {
  const std::vector<Role>& role_of = roles();
  storage.clear();
  std::size_t copied = 0;  // how much of `text` is in `storage`
  std::vector<utf8proc_int32_t> codes;
  for (std::size_t at = 0, before = 0; at < text.size();) {
    const Character character = first_character(text.substr(at));
    const auto bytes = static_cast<std::size_t>(character.bytes);
    if (const Role role = role_of[character.code]; role != kChanges) {
      before = role == kApart ? at + bytes : at;
      at += bytes;
      continue;
    }
    // From the last character that stays to the next one that does.
    codes.clear();
    std::size_t end = before;
    while (end < text.size()) {
      const Character next = first_character(text.substr(end));
      if (end >= at && role_of[next.code] != kChanges) break;
      decompose(next.code, codes);
      end += static_cast<std::size_t>(next.bytes);
    }
    compose(codes);
    storage += text.substr(copied, before - copied);
    for (const utf8proc_int32_t code : codes)
      append_character(storage, static_cast<std::uint32_t>(code));
    copied = before = at = end;
  }
  if (copied == 0) return text;
  storage += text.substr(copied);
  return storage;
}

}  // namespace infini
