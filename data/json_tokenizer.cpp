#include "data/json_tokenizer.h"

#include <algorithm>
#include <utility>

#include "data/composed_text.h"
#include "data/unit_cache.h"
#include "tensor/error.h"

namespace infini {
namespace {

// Special tokens that end a text, the first that is there: a tokenizer.json does not say which.
constexpr std::string_view kEndsOfText[] = {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"};

// The added tokens that are looked for in text as it is, or in normalised text.
std::vector<AddedToken> added_of(const TokenizerJson& file, bool normalized) {
  std::vector<AddedToken> chosen;
  std::string storage;
  for (const AddedToken& token : file.added_tokens)
    if (token.normalized == normalized) {
      chosen.push_back(token);
      if (normalized && file.compose) chosen.back().content = composed_text(token.content, storage);
    }
  return chosen;
}

}  // namespace

JsonTokenizer::JsonTokenizer(std::string_view json, const std::string& who)
    : JsonTokenizer(json, parse_tokenizer_json(json, who), who) {}

JsonTokenizer::JsonTokenizer(std::string_view json, TokenizerJson&& file, const std::string& who)
    : json_(json),
      tokens_(std::move(file.tokens)),
      is_special_(tokens_.size(), false),
      pairs_(file.bytes, file.merges),
      added_(added_of(file, false)),
      added_normalized_(added_of(file, true)),
      pattern_(file.pattern),
      compose_(file.compose),
      add_prefix_space_(file.add_prefix_space),
      caches_(std::make_unique<UnitCaches>()) {
  if (file.ignore_merges)
    for (std::size_t id = 0; id < tokens_.size(); ++id)
      if (file.is_piece[id]) whole_pieces_.emplace(tokens_[id], static_cast<std::int32_t>(id));

  const AddedToken* end = nullptr;
  for (const AddedToken& token : file.added_tokens)
    if (token.special) is_special_[static_cast<std::size_t>(token.id)] = true;
  for (const std::string_view name : kEndsOfText)
    for (const AddedToken& token : file.added_tokens)
      if (!end && token.special && token.content == name) end = &token;
  check<DataError>(end != nullptr, who,
                   ": added_tokens has no special token that ends a text, expected one of ",
                   "<|endoftext|>, <|end_of_text|>, </s>, <eos>");
  end_of_text_ = end->id;
}

JsonTokenizer::~JsonTokenizer() = default;

void JsonTokenizer::encode_piece(std::string_view piece, std::vector<std::int32_t>& tokens) const {
  if (const auto whole = whole_pieces_.find(piece); whole != whole_pieces_.end()) {
    tokens.push_back(whole->second);
  } else {
    pairs_.encode(piece, tokens);
  }
}

void JsonTokenizer::encode_ordinary(std::string_view text, UnitCache& cache,
                                    std::vector<std::int32_t>& tokens) const {
  std::string prefixed;
  if (add_prefix_space_ && !text.starts_with(' ')) text = prefixed.append(" ").append(text);
  const auto compute = [this](std::string_view piece, auto& out) { encode_piece(piece, out); };
  while (!text.empty()) {
    const std::string_view piece = text.substr(0, first_piece(pattern_, text));
    if (piece.size() > UnitCache::kLongest) {
      encode_piece(piece, tokens);
    } else {
      const auto known = cache.get(piece, compute);
      tokens.insert(tokens.end(), known.begin(), known.end());
    }
    text.remove_prefix(piece.size());
  }
}

std::vector<std::int32_t> JsonTokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size() / 3);
  caches_->use([&](UnitCache& cache) {
    std::string storage;
    const auto found = [&](std::int32_t id) { tokens.push_back(id); };
    const auto ordinary = [&](std::string_view part) { encode_ordinary(part, cache, tokens); };
    const auto raw = [&](std::string_view part) {
      added_normalized_.split(compose_ ? composed_text(part, storage) : part, ordinary, found);
    };
    added_.split(text, raw, found);
  });
  return tokens;
}

std::string JsonTokenizer::decode(std::span<const std::int32_t> tokens) const {
  std::string text;
  for (const std::int32_t token : tokens) {
    check_token(token);
    if (!is_special_[static_cast<std::size_t>(token)])
      text += tokens_[static_cast<std::size_t>(token)];
  }
  return text;
}

}  // namespace infini
