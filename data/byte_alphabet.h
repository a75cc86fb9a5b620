// The 256 letters in which byte-level tokenizers write bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace infini {

// The bytes that `letters` stand for; none when one of its characters is no letter of a byte.
// Printable characters of Latin-1 stand for themselves, the other bytes in their order for U+0100
// and on: a space is U+0120.
std::optional<std::string> bytes_of_letters(std::string_view letters);

}  // namespace infini
