// The passkey task of the Infini-attention paper (arXiv 2404.07143, appendix): a number hidden in
// filler, asked for at the end. One prompt is, joined by single spaces,
//   task line, `before` repeats of the filler, key sentence, `after` repeats of the filler,
//   question, answer.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/tokenizer.h"
#include "tensor/random.h"

namespace infini {

// The prompt up to and including "What is the pass key? The pass key is"; the answer is " " + key.
std::string passkey_text(std::string_view key, std::int64_t before, std::int64_t after);

// Where the key stands: before all filler, halfway, or directly before the question.
enum class PasskeyPosition { kStart, kMiddle, kEnd };

constexpr std::array<std::pair<std::string_view, PasskeyPosition>, 3> enum_names(PasskeyPosition) {
  return {{{"start", PasskeyPosition::kStart},
           {"middle", PasskeyPosition::kMiddle},
           {"end", PasskeyPosition::kEnd}}};
}

struct PasskeyPrompt {
  std::vector<std::int32_t> tokens;  // the prompt followed by the answer
  std::int64_t answer_begin =
      0;  // index of the first answer token; the prompt is what stands before
  std::int64_t answer_tokens = 0;  // up to the end of `tokens`
  std::string key;                 // the digits, leading zeros kept
};

// Writes prompts of an exact length in tokens. The tokenizer must not let a token span a space
// between two words of the prompt, which holds for those of this program; then the tokens are those
// of the whole string.
class PasskeyWriter {
 public:
  PasskeyWriter(const Tokenizer& tokenizer, int digits);

  // A prompt of exactly `total_tokens`, answer included, with the key after `before` repeats of the
  // filler (at most all of them). The filler is cut to length at its own end; task line, key and
  // question are never cut. Throws ConfigError when they alone are longer than total_tokens.
  PasskeyPrompt at(std::string_view key, std::int64_t total_tokens, std::int64_t before) const;
  PasskeyPrompt at(std::string_view key, std::int64_t total_tokens, PasskeyPosition position) const;

  // A random key of `digits` digits and its place, from the given stream: with probability
  // `ends_share` the first or the last place, each half of the time, else any place with equal
  // probability.
  PasskeyPrompt random(const RandomKey& stream, std::int64_t total_tokens, double ends_share) const;

  // Evaluation prompt number `index` for a length and position: a stream that shares nothing with
  // training.
  PasskeyPrompt evaluation(std::uint64_t seed, std::int64_t total_tokens, PasskeyPosition position,
                           std::int64_t index) const;
  // The same with the key after a share `depth`, in 0..1, of the filler.
  PasskeyPrompt evaluation(std::uint64_t seed, std::int64_t total_tokens, double depth,
                           std::int64_t index) const;

  int digits() const { return digits_; }
  std::int64_t shortest_tokens() const { return shortest_tokens_; }  // of a prompt without filler

 private:
  std::string random_key(const RandomKey& stream) const;
  // Of prompt `index` of one cell of a table. The stream depends on length and place as well: no
  // two cells share their keys.
  std::string evaluation_key(std::uint64_t seed, std::int64_t total_tokens, std::uint64_t place,
                             std::int64_t index) const;
  // Repeats of the filler in a prompt, the last one perhaps cut: the greatest useful `before`.
  std::int64_t repeats(std::int64_t filler_tokens) const;

  struct Parts {
    std::vector<std::int32_t> key, answer;
    std::int64_t filler_tokens;  // what is left for the filler
  };
  Parts parts(std::string_view key, std::int64_t total_tokens) const;
  PasskeyPrompt assemble(std::string_view key, const Parts& parts, std::int64_t before) const;

  const Tokenizer& tokenizer_;
  int digits_;
  std::vector<std::int32_t> task_, filler_, question_;
  std::int64_t shortest_tokens_ = 0;
};

}  // namespace infini
