#include "data/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <cstdio>

#include "data/unit_cache.h"
#include "data/units.h"
#include "tensor/error.h"

namespace infini {
namespace {

// The bytes that a normal piece stands for: U+2581 is a space.
std::string piece_text(std::string_view piece) {
  std::string bytes;
  while (!piece.empty()) {
    const bool space = piece.starts_with(kSpaceMark);
    bytes += space ? ' ' : piece[0];
    piece.remove_prefix(space ? kSpaceMark.size() : 1);
  }
  return bytes;
}

// Text that common normalisations and prefixes change.
constexpr std::string_view kProbe = " \xEF\xAC\x81 \xC2\xBD  a\xCC\x8A\n\n\t x\r\n \xC2\xA0.  ";

}  // namespace

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

SentencePieceTokenizer::SentencePieceTokenizer(std::string_view model, const std::string& who)
    : model_(model),
      processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()),
      caches_(std::make_unique<UnitCaches>()) {
  check<DataError>(!model_.empty() && processor_->LoadFromSerializedProto(model_).ok(), who,
                   ": is not a SentencePiece model");
  end_of_text_ = processor_->eos_id();
  check<DataError>(end_of_text_ >= 0, who, ": this SentencePiece model has no end-of-text piece");

  units_are_exact_ = true;
  byte_pieces_.fill(-1);
  pieces_.resize(static_cast<std::size_t>(processor_->GetPieceSize()));
  for (int id = 0; id < processor_->GetPieceSize(); ++id) {
    std::string& piece = pieces_[static_cast<std::size_t>(id)];
    if (processor_->IsByte(id)) {
      unsigned value = 0;
      check<DataError>(std::sscanf(processor_->IdToPiece(id).c_str(), "<0x%02X>", &value) == 1, who,
                       ": byte piece ", id, " is malformed");
      byte_pieces_[value & 0xFF] = id;
      piece = std::string(1, static_cast<char>(value));
    } else if (!processor_->IsControl(id) && !processor_->IsUnknown(id) &&
               !processor_->IsUnused(id)) {
      piece = piece_text(processor_->IdToPiece(id));
      if (piece.empty() || first_unit(piece).text.size() != piece.size()) units_are_exact_ = false;
    }
  }
  check<DataError>(std::find(byte_pieces_.begin(), byte_pieces_.end(), -1) == byte_pieces_.end(),
                   who, ": this SentencePiece model is lossy: it has no byte fallback");
  check<DataError>(
      decode(encode(kProbe)) == kProbe, who,
      ": this SentencePiece model is lossy: it changes white space or normalises characters");
}

void SentencePieceTokenizer::encode_valid(std::string_view text,
                                          std::vector<std::int32_t>& tokens) const {
  std::vector<int> ids;
  const auto status = processor_->Encode(absl::string_view(text.data(), text.size()), &ids);
  check(status.ok(), "sentencepiece: ", status.ToString());
  tokens.insert(tokens.end(), ids.begin(), ids.end());
}

std::vector<std::int32_t> SentencePieceTokenizer::encode_without_cache(
    std::string_view text) const {
  std::vector<std::int32_t> tokens;
  while (!text.empty()) {
    // As many units as SentencePiece can be given at once.
    std::size_t end = 0;
    while (end < text.size()) {
      const Unit unit = first_unit(text.substr(end));
      if (unit.kind == UnitKind::kRaw) break;
      end += unit.text.size();
    }
    if (end > 0) encode_valid(text.substr(0, end), tokens);
    if (end < text.size()) tokens.push_back(byte_pieces_[static_cast<unsigned char>(text[end++])]);
    text.remove_prefix(end);
  }
  return tokens;
}

std::vector<std::int32_t> SentencePieceTokenizer::encode(std::string_view text) const {
  if (!units_are_exact_) return encode_without_cache(text);
  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size() / 3);
  const auto compute = [this](std::string_view unit, auto& out) { encode_valid(unit, out); };
  caches_->use([&](UnitCache& cache) {
    while (!text.empty()) {
      const Unit unit = first_unit(text);
      if (unit.kind == UnitKind::kRaw) {
        tokens.push_back(byte_pieces_[static_cast<unsigned char>(unit.text[0])]);
      } else if (unit.text.size() > UnitCache::kLongest) {
        encode_valid(unit.text, tokens);
      } else {
        const auto known = cache.get(unit.text, compute);
        tokens.insert(tokens.end(), known.begin(), known.end());
      }
      text.remove_prefix(unit.text.size());
    }
  });
  return tokens;
}

std::string SentencePieceTokenizer::decode(std::span<const std::int32_t> tokens) const {
  std::string text;
  for (const std::int32_t token : tokens) {
    check_token(token);
    text += pieces_[static_cast<std::size_t>(token)];
  }
  return text;
}

}  // namespace infini
