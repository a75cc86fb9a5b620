#include "data/passkey.h"

#include <algorithm>
#include <cmath>

#include "data/random_sites.h"
#include "tensor/error.h"

namespace infini {
namespace {

constexpr std::string_view kTask =
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there.";
constexpr std::string_view kFiller =
    " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";
constexpr std::string_view kQuestion = " What is the pass key? The pass key is";

std::string key_sentence(std::string_view key) {
  return text(" The pass key is ", key, ". Remember it. ", key, " is the pass key.");
}

void append(std::vector<std::int32_t>& tokens, const std::vector<std::int32_t>& part) {
  tokens.insert(tokens.end(), part.begin(), part.end());
}

}  // namespace

std::string passkey_text(std::string_view key, std::int64_t before, std::int64_t after) {
  std::string prompt(kTask);
  for (std::int64_t i = 0; i < before; ++i) prompt += kFiller;
  prompt += key_sentence(key);
  for (std::int64_t i = 0; i < after; ++i) prompt += kFiller;
  return prompt += kQuestion;
}

PasskeyWriter::PasskeyWriter(const Tokenizer& tokenizer, int digits)
    : tokenizer_(tokenizer),
      digits_(digits),
      task_(tokenizer.encode(kTask)),
      filler_(tokenizer.encode(kFiller)),
      question_(tokenizer.encode(kQuestion)) {
  check<ConfigError>(digits >= 1 && digits <= 18, "data.passkey.digits must be in 1..18, got ",
                     digits);
  const std::string key(static_cast<std::size_t>(digits), '0');
  const auto fixed = task_.size() + tokenizer.encode(key_sentence(key)).size() + question_.size() +
                     tokenizer.encode(" " + key).size();
  shortest_tokens_ = static_cast<std::int64_t>(fixed);
}

PasskeyWriter::Parts PasskeyWriter::parts(std::string_view key, std::int64_t total_tokens) const {
  Parts parts{.key = tokenizer_.encode(key_sentence(key)),
              .answer = tokenizer_.encode(text(" ", key)),
              .filler_tokens = 0};
  const auto fixed = static_cast<std::int64_t>(task_.size() + parts.key.size() + question_.size() +
                                               parts.answer.size());
  check<ConfigError>(fixed <= total_tokens, "passkey: a row of ", total_tokens,
                     " tokens is too short, task, key, question and answer alone take ", fixed);
  parts.filler_tokens = total_tokens - fixed;
  return parts;
}

std::int64_t PasskeyWriter::repeats(std::int64_t filler_tokens) const {
  const auto length = static_cast<std::int64_t>(filler_.size());
  return (filler_tokens + length - 1) / length;
}

PasskeyPrompt PasskeyWriter::assemble(std::string_view key, const Parts& parts,
                                      std::int64_t before) const {
  const auto length = static_cast<std::int64_t>(filler_.size());
  const std::int64_t first =
      std::min(std::max<std::int64_t>(before, 0) * length, parts.filler_tokens);
  PasskeyPrompt prompt;
  const auto fill = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      prompt.tokens.push_back(filler_[static_cast<std::size_t>(i % length)]);
  };
  append(prompt.tokens, task_);
  fill(0, first);
  append(prompt.tokens, parts.key);
  fill(first, parts.filler_tokens);
  append(prompt.tokens, question_);
  prompt.answer_begin = static_cast<std::int64_t>(prompt.tokens.size());
  append(prompt.tokens, parts.answer);
  prompt.answer_tokens = static_cast<std::int64_t>(parts.answer.size());
  prompt.key = key;
  return prompt;
}

PasskeyPrompt PasskeyWriter::at(std::string_view key, std::int64_t total_tokens,
                                std::int64_t before) const {
  return assemble(key, parts(key, total_tokens), before);
}

PasskeyPrompt PasskeyWriter::at(std::string_view key, std::int64_t total_tokens,
                                PasskeyPosition position) const {
  const Parts pieces = parts(key, total_tokens);
  const std::int64_t all = repeats(pieces.filler_tokens);
  const std::int64_t before = position == PasskeyPosition::kStart    ? 0
                              : position == PasskeyPosition::kMiddle ? all / 2
                                                                     : all;
  return assemble(key, pieces, before);
}

std::string PasskeyWriter::random_key(const RandomKey& stream) const {
  std::string key;
  for (int i = 0; i < digits_; ++i)
    key += static_cast<char>('0' + stream.below(static_cast<std::uint64_t>(i), 10));
  return key;
}

PasskeyPrompt PasskeyWriter::random(const RandomKey& stream, std::int64_t total_tokens,
                                    double ends_share) const {
  const std::string key = random_key(stream);
  const Parts pieces = parts(key, total_tokens);
  const auto places = static_cast<std::uint64_t>(repeats(pieces.filler_tokens)) + 1;
  // Words 0..99 of the stream are the digits.
  const bool at_end = stream.uniform(100) < ends_share;
  const std::uint64_t place =
      at_end ? stream.below(101, 2) * (places - 1) : stream.below(102, places);
  return assemble(key, pieces, static_cast<std::int64_t>(place));
}

std::string PasskeyWriter::evaluation_key(std::uint64_t seed, std::int64_t total_tokens,
                                          std::uint64_t place, std::int64_t index) const {
  const RandomKey cell{seed, static_cast<std::uint64_t>(total_tokens), kSitePasskeyEvaluation};
  return random_key({cell.bits(place), static_cast<std::uint64_t>(index), kSitePasskeyEvaluation});
}

PasskeyPrompt PasskeyWriter::evaluation(std::uint64_t seed, std::int64_t total_tokens,
                                        PasskeyPosition position, std::int64_t index) const {
  const auto place = static_cast<std::uint64_t>(position);
  return at(evaluation_key(seed, total_tokens, place, index), total_tokens, position);
}

PasskeyPrompt PasskeyWriter::evaluation(std::uint64_t seed, std::int64_t total_tokens, double depth,
                                        std::int64_t index) const {
  check(depth >= 0 && depth <= 1, "passkey: depth must be in 0..1, got ", depth);
  // Apart from those of positions.
  const auto place = ~static_cast<std::uint64_t>(std::llround(depth * (1 << 20)));
  const std::string key = evaluation_key(seed, total_tokens, place, index);
  const Parts pieces = parts(key, total_tokens);
  const auto all = static_cast<double>(repeats(pieces.filler_tokens));
  return assemble(key, pieces, std::llround(depth * all));
}

}  // namespace infini
