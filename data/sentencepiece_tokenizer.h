// Byte-pair encoding by SentencePiece, made lossless for any bytes and fast by a cache of units.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace infini {

class UnitCaches;

// decode(encode(x)) == x for every string of bytes. SentencePiece itself is given only valid UTF-8;
// bytes that are not, NUL, and U+2581 (which SentencePiece would turn into a space) are written as
// byte pieces here. Text never becomes a control piece, whatever it says.
//
// Encoding works on units: a run of control white space (\n \t \r \v \f), or spaces followed by
// other characters. When no piece of the vocabulary crosses a border of units, which is so for
// every model trained here and is verified on loading, the pieces of a unit do not depend on its
// neighbours, so caching them is exact. Other models are encoded without the cache.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  // `model` is a serialised SentencePiece model. Throws DataError when it is not one, has no
  // end-of-text piece, or is lossy: without byte fallback, with a dummy prefix, or with a
  // normalisation other than identity.
  SentencePieceTokenizer(std::string_view model, const std::string& who);
  ~SentencePieceTokenizer() override;

  std::vector<std::int32_t> encode(std::string_view text) const override;
  std::vector<std::int32_t> encode_without_cache(std::string_view text) const;
  std::string decode(std::span<const std::int32_t> tokens) const override;
  int vocabulary() const override { return static_cast<int>(pieces_.size()); }
  std::int32_t end_of_text() const override { return end_of_text_; }
  std::string_view kind() const override { return "sentencepiece"; }
  const std::string& model() const { return model_; }

 protected:
  std::string definition() const override { return model_; }

 private:
  void encode_valid(std::string_view text, std::vector<std::int32_t>& tokens) const;

  std::string model_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  std::vector<std::string> pieces_;              // the bytes that each id stands for
  std::array<std::int32_t, 256> byte_pieces_{};  // id of each byte value
  std::int32_t end_of_text_ = 0;
  bool units_are_exact_ = false;
  std::unique_ptr<UnitCaches> caches_;
};

// Trains a lossless model on `sample`. Deterministic and quiet. Digits are single pieces, and
// characters too rare for a small vocabulary are left to the byte pieces. The vocabulary comes out
// smaller than asked when the sample has no more pairs to merge. Throws ConfigError when the
// vocabulary cannot hold the 256 bytes, DataError when there is no text.
constexpr int kSmallestVocabulary = 300;
std::unique_ptr<SentencePieceTokenizer> train_sentencepiece(std::string_view sample,
                                                            int vocabulary);

}  // namespace infini
