// The small fixed vocabulary of the passkey task: its words, its punctuation, and each digit as a
// token of its own.
#pragma once

#include <map>

#include "data/tokenizer.h"

namespace infini {

// Encodes text made of the words of the passkey prompt, digits and . ? , between white space. Any
// other word is a DataError that names it. decode() writes single spaces, none before punctuation
// or inside a number, so that decode(encode(prompt)) == prompt for every passkey prompt.
class WordTokenizer final : public Tokenizer {
 public:
  WordTokenizer();
  std::vector<std::int32_t> encode(std::string_view text) const override;
  std::string decode(std::span<const std::int32_t> tokens) const override;
  int vocabulary() const override { return static_cast<int>(words_.size()); }
  std::int32_t end_of_text() const override { return 0; }
  std::string_view kind() const override { return "words"; }

 protected:
  std::string definition() const override;  // the words, a line each

 private:
  std::vector<std::string> words_;  // by id; 0 is end-of-text, 1 + d is the digit d
  std::map<std::string, std::int32_t, std::less<>> ids_;
};

}  // namespace infini
