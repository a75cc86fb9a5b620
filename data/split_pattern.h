// The regular expressions by which byte-level tokenizers cut text into pieces, as functions.
//
// Each known expression has a matcher of its own that takes its first alternative that fits, as a
// backtracking engine would. Characters are those of Unicode 16; a byte that is not UTF-8 counts as
// a character that is neither letter nor number nor space.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace infini {

enum class SplitPattern {
  kGpt2,    // words and numbers with the space before them
  kLlama3,  // words with any one character before them, numbers of up to three digits, line ends
  kQwen2,   // the same with single digits
};

// The pattern that a regular expression stands for; none when it is not known.
std::optional<SplitPattern> split_pattern(std::string_view regex);
std::string split_pattern_names();  // for messages

// Length in bytes of the piece at the start of `text`, which must not be empty.
std::size_t first_piece(SplitPattern pattern, std::string_view text);

}  // namespace infini
