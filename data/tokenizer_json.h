// The file tokenizer.json of Hugging Face's tokenizers, as far as it describes byte-level
// byte-pair encoding.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/added_tokens.h"
#include "data/byte_pairs.h"
#include "data/split_pattern.h"

namespace infini {

struct TokenizerJson {
  // By id, the bytes that each token stands for; those of added tokens are their content. Ids run
  // from 0 without a gap.
  std::vector<std::string> tokens;
  std::vector<bool> is_piece;             // by id, whether the model may give it to a piece of text
  std::array<std::int32_t, 256> bytes{};  // the tokens of single bytes; all are there
  std::vector<Merge> merges;
  std::vector<AddedToken> added_tokens;
  SplitPattern pattern = SplitPattern::kGpt2;
  bool compose = false;           // normal form C before anything else
  bool add_prefix_space = false;  // before text that does not begin with one
  bool ignore_merges = false;     // a piece that is a token is taken as it is
};

// Throws DataError, which names `who`, the key, what it is and what is supported, for anything that
// is malformed or that this program would treat otherwise than the original does.
TokenizerJson parse_tokenizer_json(std::string_view bytes, const std::string& who);

}  // namespace infini
