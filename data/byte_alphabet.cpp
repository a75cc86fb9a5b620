#include "data/byte_alphabet.h"

#include <array>

#include "data/characters.h"

namespace infini {
namespace {

constexpr std::uint32_t kLetters = 0x100 + 68;  // beyond the last letter

// For each code point the byte it stands for, -1 for none.
constexpr std::array<int, kLetters> kByteOf = [] {
  std::array<int, kLetters> table{};
  table.fill(-1);
  std::uint32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool itself = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    table[itself ? static_cast<std::uint32_t>(byte) : next++] = byte;
  }
  return table;
}();

}  // namespace

std::optional<std::string> bytes_of_letters(std::string_view letters) {
  std::string bytes;
  while (!letters.empty()) {
    const Character letter = first_character(letters);
    if (letter.code >= kLetters || kByteOf[letter.code] < 0) return std::nullopt;
    bytes += static_cast<char>(kByteOf[letter.code]);
    letters.remove_prefix(static_cast<std::size_t>(letter.bytes));
  }
  return bytes;
}

}  // namespace infini
