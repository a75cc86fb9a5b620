// Tokens that are found in the text itself, before it is cut into pieces.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace infini {

struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool single_word = false;  // only where no character of a word stands beside it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = true;    // looked for in normalised text, in its own normal form
  bool special = false;      // a mark for the model, no text
};

// Finds added tokens from left to right, the longest where several begin.
class AddedTokens {
 public:
  // No two of `tokens` may have the same content, and none an empty one.
  explicit AddedTokens(std::vector<AddedToken> tokens = {});

  // Calls ordinary(part) for what stands between tokens, never empty, and found(id) for each of
  // them, in the order of the text.
  void split(std::string_view text, const std::function<void(std::string_view)>& ordinary,
             const std::function<void(std::int32_t)>& found) const;

 private:
  // The longest token at the start of `text`, or none.
  const AddedToken* longest(std::string_view text) const;
  static std::uint64_t edge(std::int32_t node, char c) {
    return static_cast<std::uint64_t>(node) << 8 | static_cast<unsigned char>(c);
  }

  std::vector<AddedToken> tokens_;
  std::array<bool, 256> begins_{};  // with which bytes a token begins
  std::unordered_map<std::uint64_t, std::int32_t>
      nodes_;                               // a tree of their bytes: where edges lead
  std::vector<std::int32_t> token_at_{-1};  // for each node the token that ends there
};

}  // namespace infini
