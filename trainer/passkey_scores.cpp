#include "trainer/passkey_scores.h"

#include <algorithm>
#include <chrono>
#include <span>

#include "data/seconds_since.h"
#include "model/recurrence.h"
#include "tensor/allocator.h"

namespace infini {
namespace {

constexpr std::size_t kRowsAtOnce = 10;

using Prompts = std::span<const PasskeyPrompt>;

// Tokens [begin, begin + count) of all prompts. [B, count]
Rows stretch_of(Prompts prompts, std::int64_t begin, std::int64_t count, std::int64_t segment) {
  std::vector<std::int32_t> tokens;
  for (const PasskeyPrompt& prompt : prompts)
    tokens.insert(tokens.end(), prompt.tokens.begin() + begin,
                  prompt.tokens.begin() + begin + count);
  const Tensor all = Tensor::of(tokens, {static_cast<std::int64_t>(prompts.size()), count});
  return {.segment_tokens = segment,
          .tokens = all,
          .targets = all,
          .weights = {},
          .resets = {},
          .keep = {}};
}

// How many tokens of the answer the model names, of those that hidden states [count, D] of tokens
// begin, begin + 1, ... predict.
int right_tokens(const InfiniTransformer& model, const PasskeyPrompt& prompt, const Tensor& hidden,
                 std::int64_t begin) {
  const std::int64_t first = std::max(prompt.answer_begin - 1, begin);
  const std::int64_t last =
      std::min(prompt.answer_begin + prompt.answer_tokens - 1, begin + hidden.shape()[0]);
  if (first >= last) return 0;
  const Tensor logits = model.logits(hidden.slice(first - begin, last - first));
  const std::vector<float> values = logits.to_vector<float>();
  const std::int64_t vocabulary = logits.shape()[1];
  int right = 0;
  for (std::int64_t at = first; at < last; ++at) {
    const auto row = values.begin() + (at - first) * vocabulary;
    right += std::max_element(row, row + vocabulary) - row == prompt.tokens[at + 1];
  }
  return right;
}

void add_scores(const InfiniTransformer& model, Prompts prompts, std::int64_t segments_at_once,
                PasskeyScore& score) {
  const std::int64_t segment = model.config().segment_tokens, stretch = segment * segments_at_once;
  const auto tokens = static_cast<std::int64_t>(prompts.front().tokens.size());
  const Recurrence recurrence(model, {});
  Memories memory = empty_memories(model.config());
  std::vector<int> right(prompts.size());
  for (std::int64_t begin = 0; begin < tokens; begin += stretch) {
    const Rows rows = stretch_of(prompts, begin, std::min(stretch, tokens - begin), segment);
    memory = recurrence.forward(
        rows, memory, segments_at_once, [&](const Piece& piece, const Tensor& hidden) {
          const std::int64_t count = piece.count * piece.tokens;
          for (std::size_t b = 0; b < prompts.size(); ++b)
            right[b] += right_tokens(model, prompts[b],
                                     hidden.slice(static_cast<std::int64_t>(b) * count, count),
                                     begin + piece.first * segment);
        });
    note_progress();
  }
  for (std::size_t b = 0; b < prompts.size(); ++b) {
    ++score.prompts;
    score.digits += prompts[b].answer_tokens;
    score.right_digits += right[b];
    score.exact += right[b] == prompts[b].answer_tokens;
  }
}

}  // namespace

PasskeyScore score_passkeys(const InfiniTransformer& model,
                            const std::vector<PasskeyPrompt>& prompts,
                            std::int64_t segments_at_once) {
  PasskeyScore score;
  for (std::size_t first = 0; first < prompts.size(); first += kRowsAtOnce)
    add_scores(model,
               Prompts(prompts).subspan(first, std::min(kRowsAtOnce, prompts.size() - first)),
               segments_at_once, score);
  return score;
}

std::vector<PasskeyPrompt> evaluation_prompts(const PasskeyWriter& writer, std::int64_t seed,
                                              std::int64_t tokens, PasskeyPosition position,
                                              int count) {
  std::vector<PasskeyPrompt> prompts;
  for (int i = 0; i < count; ++i)
    prompts.push_back(writer.evaluation(static_cast<std::uint64_t>(seed), tokens, position, i));
  return prompts;
}

PasskeyReading read_passkeys(InfiniTransformer& model, const std::vector<PasskeyPrompt>& prompts,
                             bool memory, std::int64_t segments_at_once,
                             const Communicator& ranks) {
  model.use_memory(memory);
  const auto all = static_cast<std::size_t>(ranks.size());
  std::vector<PasskeyPrompt> mine;
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    tokens += static_cast<std::int64_t>(prompts[i].tokens.size());
    if (i % all == static_cast<std::size_t>(ranks.rank())) mine.push_back(prompts[i]);
  }
  reset_peak(model.device());
  const auto begin = std::chrono::steady_clock::now();
  const PasskeyScore part = score_passkeys(model, mine, segments_at_once);
  const std::vector<double> sums =
      ranks.sum({static_cast<double>(part.prompts), static_cast<double>(part.exact),
                 static_cast<double>(part.digits), static_cast<double>(part.right_digits)});
  const double seconds = seconds_since(begin);
  return {.score = {.prompts = static_cast<int>(sums[0]),
                    .exact = static_cast<int>(sums[1]),
                    .digits = static_cast<std::int64_t>(sums[2]),
                    .right_digits = static_cast<std::int64_t>(sums[3])},
          .tokens_per_second = static_cast<double>(tokens) / seconds,
          .peak_bytes = memory_statistics(model.device()).peak_bytes};
}

}  // namespace infini
