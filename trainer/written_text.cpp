#include "trainer/written_text.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

namespace infini {
namespace {

// What a token adds to a text that ends with another one: words of the passkey task are written
// apart, the pieces of a word are not. Ids that only fill up the embedding of an import are no
// text.
std::string text_after(const Tokenizer& tokenizer, std::int32_t last, std::int32_t token) {
  if (token >= tokenizer.vocabulary()) return {};
  if (last >= tokenizer.vocabulary()) return tokenizer.decode({&token, 1});
  return tokenizer.decode(std::array{last, token}).substr(tokenizer.decode({&last, 1}).size());
}

}  // namespace

std::string StopText::add(const std::string& piece) {
  if (found_) return {};
  held_ += piece;
  std::size_t first = std::string::npos, begun = 0;
  for (const std::string& stop : stops_) {
    if (stop.empty()) continue;
    first = std::min(first, held_.find(stop));
    // The longest end of the text with which a stop may begin.
    std::size_t length = std::min(held_.size(), stop.size() - 1);
    while (!held_.ends_with(std::string_view(stop).substr(0, length))) --length;
    begun = std::max(begun, length);
  }
  found_ = first != std::string::npos;
  std::string shown = held_.substr(0, found_ ? first : held_.size() - begun);
  held_.erase(0, found_ ? held_.size() : shown.size());
  return shown;
}

std::string StopText::rest() { return std::exchange(held_, {}); }

bool WrittenText::add(std::int32_t token) {
  pass_on(stop_.add(text_after(*tokenizer_, last_, token)));
  last_ = token;
  return !stop_.found();
}

void WrittenText::pass_on(const std::string& piece) {
  text_ += piece;
  if (show_ && !piece.empty()) show_(piece);
}

}  // namespace infini
