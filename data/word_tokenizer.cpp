#include "data/word_tokenizer.h"

#include "data/passkey.h"
#include "tensor/error.h"

namespace infini {
namespace {

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_mark(char c) { return c == '.' || c == '?' || c == ','; }

// Calls use(word) for each word, mark and digit of the text in order.
template <class Use>
void split(std::string_view text, Use use) {
  for (std::size_t begin = 0; begin < text.size();) {
    if (is_space(text[begin])) {
      ++begin;
      continue;
    }
    std::size_t end = begin + 1;
    if (!is_digit(text[begin]) && !is_mark(text[begin]))
      while (end < text.size() && !is_space(text[end]) && !is_digit(text[end]) &&
             !is_mark(text[end]))
        ++end;
    use(text.substr(begin, end - begin));
    begin = end;
  }
}

}  // namespace

WordTokenizer::WordTokenizer() {
  const auto add = [this](std::string_view word) {
    if (ids_.emplace(word, static_cast<std::int32_t>(words_.size())).second)
      words_.emplace_back(word);
  };
  add("<end of text>");
  for (const char* digit : {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}) add(digit);
  for (const char* mark : {".", "?", ","}) add(mark);
  split(passkey_text("", 1, 0), add);  // every word of the task stands in its shortest prompt
}

std::vector<std::int32_t> WordTokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> tokens;
  split(text, [&](std::string_view word) {
    const auto found = ids_.find(word);
    check<DataError>(found != ids_.end(), "words tokenizer: '", word, "' is not among the ",
                     vocabulary(), " words of the passkey task");
    tokens.push_back(found->second);
  });
  return tokens;
}

std::string WordTokenizer::decode(std::span<const std::int32_t> tokens) const {
  std::string text;
  for (const std::int32_t token : tokens) {
    check_token(token);
    if (token == end_of_text()) continue;
    const std::string& word = words_[static_cast<std::size_t>(token)];
    const bool joined =
        is_mark(word[0]) || (is_digit(word[0]) && !text.empty() && is_digit(text.back()));
    if (!text.empty() && !joined) text += ' ';
    text += word;
  }
  return text;
}

std::string WordTokenizer::definition() const {
  std::string lines;
  for (const std::string& word : words_) lines += word + '\n';
  return lines;
}

}  // namespace infini
