#include "data/passkey_source.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "data/random_sites.h"
#include "data/word_tokenizer.h"
#include "tensor/error.h"

namespace infini {

std::unique_ptr<Tokenizer> passkey_tokenizer(const PasskeyConfig& config) {
  if (!config.tokenizer.empty()) {
    check<ConfigError>(std::filesystem::exists(config.tokenizer),
                       "data.passkey.tokenizer: ", config.tokenizer, " does not exist");
    return read_tokenizer(config.tokenizer);
  }
  if (config.tokens == PasskeyTokens::kBytes) return std::make_unique<ByteTokenizer>();
  return std::make_unique<WordTokenizer>();
}

PasskeySource::PasskeySource(const PasskeyConfig& config, int batch_rows,
                             std::int64_t segment_tokens, std::uint64_t seed,
                             std::int64_t total_steps)
    : config_(config),
      batch_rows_(batch_rows),
      segment_tokens_(segment_tokens),
      seed_(seed),
      short_steps_(std::llround(config.short_share * static_cast<double>(total_steps))),
      growing_steps_(std::llround(config.growing_share * static_cast<double>(total_steps))) {
  config_.validate();
  check<ConfigError>(batch_rows >= 1, "data.batch_rows must be at least 1, got ", batch_rows);
  check<ConfigError>(segment_tokens >= 1, "segment_tokens must be at least 1, got ",
                     segment_tokens);
  check<ConfigError>(total_steps >= 0, "total_steps must not be negative, got ", total_steps);
  tokenizer_ = passkey_tokenizer(config_);
  writer_ = std::make_unique<PasskeyWriter>(*tokenizer_, config_.digits);
  lengths_ = config_.prompt_lengths(segment_tokens);
  const std::int64_t needed = writer_->shortest_tokens();
  check<ConfigError>(lengths_.front() >= needed, "data.passkey.",
                     config_.row_tokens.empty() ? "row_segments" : "row_tokens",
                     ": the shortest row holds ", lengths_.front(),
                     " tokens, the shortest prompt with ", config_.digits, " digits takes ",
                     needed);
}

std::int64_t PasskeySource::prompt_tokens(std::int64_t step) const {
  const auto all = static_cast<std::int64_t>(lengths_.size());
  std::int64_t drawn = all;
  if (step < short_steps_)
    drawn = 1;
  else if (step < short_steps_ + growing_steps_)
    drawn = 1 + (step - short_steps_) * all / growing_steps_;
  const RandomKey stream{seed_, static_cast<std::uint64_t>(step), kSitePasskeyLength};
  return lengths_[stream.below(0, static_cast<std::uint64_t>(std::min(drawn, all)))];
}

std::int64_t PasskeySource::row_tokens(std::int64_t step) const {
  return config_.packed ? lengths_.back() : prompt_tokens(step);
}

PasskeyPrompt PasskeySource::prompt(std::int64_t step, std::int64_t index) const {
  const RandomKey prompts{seed_, static_cast<std::uint64_t>(step), kSitePasskeyRow};
  const RandomKey stream{prompts.bits(static_cast<std::uint64_t>(index)), 0, kSitePasskeyRow};
  return writer_->random(stream, prompt_tokens(step), config_.ends_share);
}

SequenceBatch PasskeySource::batch(std::int64_t step, int first_row, int rows) const {
  check_rows(step, first_row, rows);
  const std::int64_t length = prompt_tokens(step), each = row_tokens(step) / length;
  SequenceBatch batch =
      padded_batch(rows, each * length, segment_tokens_, tokenizer_->end_of_text());
  batch.keep.clear();  // no padding anywhere
  batch.weights.resize(batch.tokens.size());
  for (std::int64_t i = 0; i < rows * each; ++i) {
    const PasskeyPrompt prompt_ = prompt(step, first_row * each + i);
    const std::int64_t begin = i * length;
    std::copy(prompt_.tokens.begin(), prompt_.tokens.end(), batch.tokens.begin() + begin);
    std::copy(prompt_.tokens.begin() + 1, prompt_.tokens.end(), batch.targets.begin() + begin);
    std::fill_n(batch.weights.begin() + begin, length,
                static_cast<float>(filler_weight(length, prompt_.answer_tokens)));
    std::fill_n(batch.weights.begin() + begin + prompt_.answer_begin - 1, prompt_.answer_tokens,
                1.0f);
    batch.resets[static_cast<std::size_t>(i * batch.segments / each)] = 1;
  }
  finish_batch(batch);
  return batch;
}

double PasskeySource::filler_weight(std::int64_t length, std::int64_t answer) const {
  if (config_.answer_share == 0) return config_.filler_weight;
  const auto others = static_cast<double>(std::max<std::int64_t>(length - 1 - answer, 1));
  return static_cast<double>(answer) * (1 / config_.answer_share - 1) / others;
}

std::string PasskeySource::description() const {
  std::string lengths;
  for (const std::int64_t tokens : lengths_) lengths += text(lengths.empty() ? "" : ", ", tokens);
  return text("passkey prompts (", tokenizer_->kind(), "), ", config_.digits, " digits, ", lengths,
              " tokens in segments of ", segment_tokens_, ", ", batch_rows_, " rows a step",
              config_.packed ? text(" of ", lengths_.back(), " tokens") : "", "; the first ",
              short_steps_, " steps use ", lengths_.front(), " tokens",
              growing_steps_ > 0 ? text(", the next ", growing_steps_, " more and more") : "");
}

}  // namespace infini
