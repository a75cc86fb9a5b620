// Training steps of generated passkey rows.
#pragma once

#include <memory>

#include "data/batch.h"
#include "data/config.h"
#include "data/passkey.h"

namespace infini {

// The prompts of a step have one length, answer included, drawn from row_segments or row_tokens
// with equal probability: the first short_share of total_steps from the shortest
// alone, over the next growing_share from more and more of them. A row is one prompt or, where they
// are packed, the longest of them or as many shorter ones. Targets are the following tokens; the
// last of a prompt has none. Answer tokens weigh 1, the others what filler_weight or answer_share
// says. Every prompt starts with an empty memory.
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

  // In tokens.
  std::int64_t prompt_tokens(std::int64_t step) const;
  std::int64_t row_tokens(std::int64_t step) const;
  // Number `index` of a step, row by row.
  PasskeyPrompt prompt(std::int64_t step, std::int64_t index) const;

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const PasskeyWriter& writer() const { return *writer_; }

 private:
  // Of a token outside the answer, in a prompt of `length` tokens of which `answer` are the answer.
  double filler_weight(std::int64_t length, std::int64_t answer) const;

  PasskeyConfig config_;
  int batch_rows_;
  std::int64_t segment_tokens_;
  std::uint64_t seed_;
  std::int64_t short_steps_, growing_steps_;
  std::vector<std::int64_t> lengths_;  // of prompts in tokens, ascending
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<const PasskeyWriter> writer_;
};

// The tokenizer of generated passkey text. Throws ConfigError for a file that does not exist.
std::unique_ptr<Tokenizer> passkey_tokenizer(const PasskeyConfig& config);

}  // namespace infini
