#include "data/passkey_source.h"

#include <algorithm>
#include <cmath>

#include "data/random_sites.h"
#include "data/word_tokenizer.h"
#include "tensor/error.h"

namespace infini {

std::unique_ptr<Tokenizer> passkey_tokenizer(PasskeyTokens tokens) {
  if (tokens == PasskeyTokens::kBytes) return std::make_unique<ByteTokenizer>();
  return std::make_unique<WordTokenizer>();
}

PasskeySource::PasskeySource(const PasskeyConfig& config, int batch_rows,
                             std::int64_t segment_tokens, std::uint64_t seed,
                             std::int64_t total_steps)
    : config_(config),
      batch_rows_(batch_rows),
      segment_tokens_(segment_tokens),
      seed_(seed),
      short_steps_(std::llround(config.short_share * static_cast<double>(total_steps))) {
  config_.validate();
  check<ConfigError>(batch_rows >= 1, "data.batch_rows must be at least 1, got ", batch_rows);
  check<ConfigError>(segment_tokens >= 1, "segment_tokens must be at least 1, got ",
                     segment_tokens);
  check<ConfigError>(total_steps >= 0, "total_steps must not be negative, got ", total_steps);
  tokenizer_ = passkey_tokenizer(config_.tokens);
  writer_ = std::make_unique<PasskeyWriter>(*tokenizer_, config_.digits);
  shortest_ = *std::min_element(config_.row_segments.begin(), config_.row_segments.end());
  const std::int64_t needed = writer_->shortest_tokens();
  check<ConfigError>(shortest_ * segment_tokens >= needed, "data.passkey.row_segments: ", shortest_,
                     " segments of ", segment_tokens, " tokens hold ", shortest_ * segment_tokens,
                     " tokens, the shortest prompt with ", config_.digits, " digits takes ",
                     needed);
}

std::int64_t PasskeySource::row_segments(std::int64_t step) const {
  if (step < short_steps_) return shortest_;
  const RandomKey stream{seed_, static_cast<std::uint64_t>(step), kSitePasskeyLength};
  return config_.row_segments[stream.below(0, config_.row_segments.size())];
}

PasskeyPrompt PasskeySource::prompt(std::int64_t step, int row) const {
  const RandomKey rows{seed_, static_cast<std::uint64_t>(step), kSitePasskeyRow};
  const RandomKey stream{rows.bits(static_cast<std::uint64_t>(row)), 0, kSitePasskeyRow};
  return writer_->random(stream, row_segments(step) * segment_tokens_, config_.ends_share);
}

SequenceBatch PasskeySource::batch(std::int64_t step, int first_row, int rows) const {
  check_rows(step, first_row, rows);
  const std::int64_t length = row_segments(step) * segment_tokens_;
  SequenceBatch batch = padded_batch(rows, length, segment_tokens_, tokenizer_->end_of_text());
  batch.keep.clear();  // no padding anywhere
  batch.weights.assign(batch.tokens.size(), static_cast<float>(config_.filler_weight));
  for (int r = 0; r < rows; ++r) {
    const PasskeyPrompt row = prompt(step, first_row + r);
    const std::int64_t begin = r * length;
    std::copy(row.tokens.begin(), row.tokens.end(), batch.tokens.begin() + begin);
    std::copy(row.tokens.begin() + 1, row.tokens.end(), batch.targets.begin() + begin);
    std::fill_n(batch.weights.begin() + begin + row.answer_begin - 1, row.answer_tokens, 1.0f);
    batch.resets[static_cast<std::size_t>(r * batch.segments)] = 1;
  }
  finish_batch(batch);
  return batch;
}

std::string PasskeySource::description() const {
  std::string lengths;
  for (const std::int64_t segments : config_.row_segments)
    lengths += text(lengths.empty() ? "" : ", ", segments);
  return text("passkey rows (", tokenizer_->kind(), "), ", config_.digits, " digits, ", lengths,
              " segments of ", segment_tokens_, " tokens, ", batch_rows_,
              " rows a step; the first ", short_steps_, " steps use ", shortest_, " segments");
}

}  // namespace infini
