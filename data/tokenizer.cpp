#include "data/tokenizer.h"

#include <xxhash.h>

#include "data/durable_file.h"
#include "data/json_tokenizer.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/word_tokenizer.h"
#include "tensor/error.h"

namespace infini {
namespace {

constexpr std::string_view kMagic = "infini-tokenizer ";

}  // namespace

std::string Tokenizer::serialise() const { return text(kMagic, kind(), '\n') + definition(); }

std::uint64_t Tokenizer::hash() const {
  const std::string bytes = serialise();
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::string Tokenizer::hash_text() const { return hash_digits(hash()); }

void Tokenizer::check_token(std::int32_t token) const {
  check<DataError>(token >= 0 && token < vocabulary(), kind(), " tokenizer: token id ", token,
                   " is beyond the vocabulary of ", vocabulary());
}

std::unique_ptr<Tokenizer> load_tokenizer(std::string_view bytes, const std::string& who) {
  check<DataError>(bytes.starts_with(kMagic) && bytes.find('\n') != bytes.npos, who,
                   ": is not a tokenizer of this program");
  const std::size_t line = bytes.find('\n');
  const std::string_view kind = bytes.substr(kMagic.size(), line - kMagic.size());
  const std::string_view definition = bytes.substr(line + 1);
  if (kind == "byte") return std::make_unique<ByteTokenizer>();
  if (kind == "words") {
    auto words = std::make_unique<WordTokenizer>();
    check<DataError>(words->serialise() == bytes, who,
                     ": the words of its tokenizer are not the passkey words of this build");
    return words;
  }
  if (kind == "sentencepiece") return std::make_unique<SentencePieceTokenizer>(definition, who);
  if (kind == "tokenizer.json") return std::make_unique<JsonTokenizer>(definition, who);
  throw DataError(text(who, ": tokenizer kind '", kind,
                       "' is unknown, expected byte, words, sentencepiece or tokenizer.json"));
}

std::unique_ptr<Tokenizer> read_tokenizer(const std::filesystem::path& path) {
  const std::string bytes = read_file(path);
  if (bytes.starts_with(kMagic)) return load_tokenizer(bytes, path.string());
  if (bytes.starts_with('{') || path.extension() == ".json")
    return std::make_unique<JsonTokenizer>(bytes, path.string());
  return std::make_unique<SentencePieceTokenizer>(bytes, path.string());
}

void save_tokenizer(const Tokenizer& tokenizer, const std::filesystem::path& path) {
  if (const auto* pieces = dynamic_cast<const SentencePieceTokenizer*>(&tokenizer)) {
    write_file(path, pieces->model());
  } else if (const auto* pairs = dynamic_cast<const JsonTokenizer*>(&tokenizer)) {
    write_file(path, pairs->json());
  } else {
    write_file(path, tokenizer.serialise());
  }
}

std::string tokenizer_file_name(const Tokenizer& tokenizer) {
  return tokenizer.kind() == "tokenizer.json" ? "tokenizer.json" : "tokenizer.model";
}

std::vector<std::int32_t> ByteTokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size());
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

std::string ByteTokenizer::decode(std::span<const std::int32_t> tokens) const {
  std::string text;
  text.reserve(tokens.size());
  for (const std::int32_t token : tokens) {
    check_token(token);
    if (token != end_of_text()) text.push_back(static_cast<char>(token));
  }
  return text;
}

}  // namespace infini
