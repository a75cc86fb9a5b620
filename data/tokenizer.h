// Text to token ids and back.
//
// A tokenizer is immutable and may be used from any thread. serialise() gives everything it is, so
// that it lives inside a token store and beside a checkpoint; load_tokenizer() gives it back;
// hash() tells two of them apart.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace infini {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids in [0, vocabulary()). Never end_of_text(), whatever the text says, but for "tokenizer.json"
  // where a text spells it, as with the original.
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  // end_of_text() and other marks that are no text decode to nothing. Throws DataError for an id
  // beyond the vocabulary.
  virtual std::string decode(std::span<const std::int32_t> tokens) const = 0;

  virtual int vocabulary() const = 0;
  virtual std::int32_t end_of_text() const = 0;  // stands at both ends of every document
  virtual std::string_view kind() const = 0;  // "byte", "words", "sentencepiece", "tokenizer.json"

  // "infini-tokenizer <kind>\n" and what this kind needs.
  std::string serialise() const;
  std::uint64_t hash() const;     // xxh3 of serialise()
  std::string hash_text() const;  // the same as 16 hexadecimal digits

 protected:
  virtual std::string definition() const = 0;
  void check_token(std::int32_t token) const;
};

// The tokenizer whose serialise() gave these bytes. `who` names their origin in messages.
std::unique_ptr<Tokenizer> load_tokenizer(std::string_view bytes, const std::string& who);

// Files: a SentencePiece tokenizer is written as its bare model and a tokenizer.json as it is,
// which other programs read; the others as serialise().
std::unique_ptr<Tokenizer> read_tokenizer(const std::filesystem::path& path);
void save_tokenizer(const Tokenizer& tokenizer, const std::filesystem::path& path);
// What its file is called beside token stores: tokenizer.json or tokenizer.model.
std::string tokenizer_file_name(const Tokenizer& tokenizer);

// One token for each of the 256 byte values, and end-of-text as token 256. Lossless for any bytes.
class ByteTokenizer final : public Tokenizer {
 public:
  std::vector<std::int32_t> encode(std::string_view text) const override;
  std::string decode(std::span<const std::int32_t> tokens) const override;
  int vocabulary() const override { return 257; }
  std::int32_t end_of_text() const override { return 256; }
  std::string_view kind() const override { return "byte"; }

 protected:
  std::string definition() const override { return {}; }
};

}  // namespace infini
