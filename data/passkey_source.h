// Training steps of generated passkey rows.
#pragma once

#include <memory>

#include "data/batch.h"
#include "data/config.h"
#include "data/passkey.h"

namespace infini {

// Row `row` of step `step` is a prompt of exactly row_segments * segment_tokens tokens, answer
// included; targets are the following tokens, the last position of a row has none. Answer tokens
// weigh 1, the others filler_weight. The first short_share of total_steps uses the shortest length,
// later steps draw any of the list with equal probability. Every row starts with an empty memory.
class PasskeySource final : public BatchSource {
 public:
  // Throws ConfigError when the shortest row cannot hold the prompt, naming what it needs.
  PasskeySource(const PasskeyConfig& config, int batch_rows, std::int64_t segment_tokens,
                std::uint64_t seed, std::int64_t total_steps);

  using BatchSource::batch;
  SequenceBatch batch(std::int64_t step, int first_row, int rows) const override;
  int batch_rows() const override { return batch_rows_; }
  std::int64_t steps_per_epoch() const override { return 0; }
  int vocabulary() const override { return tokenizer_->vocabulary(); }
  std::string description() const override;

  std::int64_t row_segments(std::int64_t step) const;
  PasskeyPrompt prompt(std::int64_t step, int row) const;

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const PasskeyWriter& writer() const { return *writer_; }

 private:
  PasskeyConfig config_;
  int batch_rows_;
  std::int64_t segment_tokens_;
  std::uint64_t seed_;
  std::int64_t short_steps_;
  std::int64_t shortest_ = 0;  // segments
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<const PasskeyWriter> writer_;
};

// The tokenizer of generated passkey text.
std::unique_ptr<Tokenizer> passkey_tokenizer(PasskeyTokens tokens);

}  // namespace infini
