// Byte-level byte-pair encoding by a tokenizer.json of Hugging Face's tokenizers, with the ids of
// the original.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/added_tokens.h"
#include "data/byte_pairs.h"
#include "data/tokenizer.h"
#include "data/tokenizer_json.h"

namespace infini {

class UnitCache;
class UnitCaches;

// As the original with add_special_tokens=False: nothing is put at the ends of a text, as the
// token stores and commands put end_of_text() there themselves; what the post-processor would add
// is not used. Added tokens are found in the text, special ones as well, so a text that spells
// end_of_text() gives it.
//
// Bytes that are not UTF-8, which the original does not take, become the tokens of those bytes.
// decode(encode(x)) is x, without the special tokens that it spells; in normal form C and with the
// space before it where the file asks for that.
class JsonTokenizer final : public Tokenizer {
 public:
  // `json` is the file's content. Throws DataError when it is malformed, asks for something that is
  // not supported, or has no special token known to end a text.
  JsonTokenizer(std::string_view json, const std::string& who);
  ~JsonTokenizer();

  std::vector<std::int32_t> encode(std::string_view text) const override;
  std::string decode(std::span<const std::int32_t> tokens) const override;
  int vocabulary() const override { return static_cast<int>(tokens_.size()); }
  std::int32_t end_of_text() const override { return end_of_text_; }
  std::string_view kind() const override { return "tokenizer.json"; }
  const std::string& json() const { return json_; }

 protected:
  std::string definition() const override { return json_; }

 private:
  JsonTokenizer(std::string_view json, TokenizerJson&& file, const std::string& who);
  void encode_ordinary(std::string_view text, UnitCache& cache,
                       std::vector<std::int32_t>& tokens) const;
  void encode_piece(std::string_view piece, std::vector<std::int32_t>& tokens) const;

  std::string json_;
  std::vector<std::string> tokens_;  // the bytes that each id stands for
  std::vector<bool> is_special_;
  std::unordered_map<std::string_view, std::int32_t> whole_pieces_;  // views of tokens_
  BytePairs pairs_;
  AddedTokens added_, added_normalized_;
  SplitPattern pattern_;
  bool compose_, add_prefix_space_;
  std::int32_t end_of_text_ = 0;
  std::unique_ptr<UnitCaches> caches_;
};

}  // namespace infini
