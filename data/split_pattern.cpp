#include "data/split_pattern.h"

#include "data/characters.h"

namespace infini {
namespace {

constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

// A place in a text and what stands there.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) { look(); }

  bool at_end() const { return at_ == text_.size(); }
  std::size_t at() const { return at_; }
  bool is(int kinds) const { return !at_end() && (kind_ & kinds) != 0; }
  bool is_other() const { return !at_end() && (kind_ & (kLetter | kNumber | kSpace)) == 0; }
  bool is_line_end() const { return !at_end() && (text_[at_] == '\r' || text_[at_] == '\n'); }
  bool is_blank() const { return !at_end() && text_[at_] == ' '; }

  void next() {
    at_ += static_cast<std::size_t>(bytes_);
    look();
  }

 private:
  void look() {
    if (at_end()) return;
    const auto byte = static_cast<unsigned char>(text_[at_]);
    const Character found = byte < 0x80 ? Character{byte, 1} : first_character(text_.substr(at_));
    kind_ = kinds_[found.code];
    bytes_ = found.bytes;
  }

  std::string_view text_;
  const std::uint8_t* kinds_ = character_kinds();
  std::size_t at_ = 0;
  std::uint8_t kind_ = 0;
  int bytes_ = 0;
};

// 's|'t|'re|'ve|'m|'ll|'d at the start of `text`, 0 when there is none. Without regard to case,
// U+017F, the long s, is an s as well.
std::size_t contraction(std::string_view text, bool any_case) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const auto lower = [&](std::size_t i) {
    const char c = i < text.size() ? text[i] : '\0';
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char first = lower(1), second = lower(2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if ((first == 'r' || first == 'v') && second == 'e') return 3;
  if (first == 'l' && second == 'l') return 3;
  return any_case && text.substr(1).starts_with("\xC5\xBF") ? 3 : 0;
}

// \s+(?!\S)|\s+ where a space stands: a run of spaces leaves its last to what follows it.
std::size_t spaces(Reader reader) {
  std::size_t last = 0;  // where the last character of the run begins
  while (reader.is(kSpace)) {
    last = reader.at();
    reader.next();
  }
  return reader.at_end() || last == 0 ? reader.at() : last;
}

std::size_t gpt2_piece(std::string_view text) {
  if (const std::size_t end = contraction(text, false)) return end;
  const Reader start(text);
  Reader reader = start;
  if (reader.is_blank()) reader.next();
  if (reader.is(kLetter | kNumber)) {
    const int kind = reader.is(kLetter) ? kLetter : kNumber;
    while (reader.is(kind)) reader.next();
    return reader.at();
  }
  if (!reader.is_other()) return spaces(start);
  while (reader.is_other()) reader.next();
  return reader.at();
}

std::size_t llama3_piece(std::string_view text, int digits) {
  if (const std::size_t end = contraction(text, true)) return end;
  const Reader start(text);

  Reader reader = start;  // [^\r\n\p{L}\p{N}]?\p{L}+
  if (!reader.is(kLetter | kNumber) && !reader.is_line_end()) reader.next();
  if (reader.is(kLetter)) {
    while (reader.is(kLetter)) reader.next();
    return reader.at();
  }

  reader = start;
  if (reader.is(kNumber)) {
    for (int i = 0; i < digits && reader.is(kNumber); ++i) reader.next();
    return reader.at();
  }

  if (reader.is_blank()) reader.next();
  if (reader.is_other()) {
    while (reader.is_other()) reader.next();
    while (reader.is_line_end()) reader.next();
    return reader.at();
  }

  std::size_t line_end = 0;  // \s*[\r\n]+ reaches to the last line end of the run
  for (reader = start; reader.is(kSpace);) {
    const bool here = reader.is_line_end();
    reader.next();
    if (here) line_end = reader.at();
  }
  return line_end > 0 ? line_end : spaces(start);
}

}  // namespace

std::optional<SplitPattern> split_pattern(std::string_view regex) {
  if (regex == kGpt2Regex) return SplitPattern::kGpt2;
  if (regex == kLlama3Regex) return SplitPattern::kLlama3;
  if (regex == kQwen2Regex) return SplitPattern::kQwen2;
  return std::nullopt;
}

std::string split_pattern_names() { return "the expressions of GPT-2, Llama 3 and Qwen2"; }

std::size_t first_piece(SplitPattern pattern, std::string_view text) {
  switch (pattern) {
    case SplitPattern::kGpt2:
      return gpt2_piece(text);
    case SplitPattern::kLlama3:
      return llama3_piece(text, 3);
    case SplitPattern::kQwen2:
      return llama3_piece(text, 1);
  }
  return text.size();
}

}  // namespace infini
