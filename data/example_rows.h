// Examples as a model reads them: end_of_text, document, prompt, summary, end_of_text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/config.h"
#include "data/example_store.h"

namespace infini {

// Example i is store().examples()[i]. `document_tokens` is how much of a document is read at most;
// 0: all of it. The key `cut` says which part of a longer one is left out.
class ExampleRows {
 public:
  ExampleRows(std::shared_ptr<const ExampleStore> store, const ExamplesConfig& config);

  const ExampleStore& store() const { return *store_; }
  std::int64_t size() const { return static_cast<std::int64_t>(store_->examples().size()); }
  std::int64_t prompt_tokens() const { return static_cast<std::int64_t>(prompt_.size()); }

  // What a model continues with a summary: end_of_text, the document, the prompt.
  std::vector<std::int32_t> prompt(std::int64_t example, std::int64_t document_tokens) const;
  // The summary as its author wrote it, never cut.
  std::string reference(std::int64_t example) const;

  struct Row {
    std::vector<std::int32_t> tokens;
    std::int64_t summary_begin = 0;  // of the first token that is learned
  };
  // The prompt and what shall follow it. A summary of more than summary_tokens is cut there and has
  // no end_of_text behind it.
  Row row(std::int64_t example, std::int64_t document_tokens) const;
  // Tokens of such a row, from the tables alone: of what is learned, and of all.
  std::int64_t learned_tokens(std::int64_t example) const;
  std::int64_t row_tokens(std::int64_t example, std::int64_t document_tokens) const;

 private:
  const StoredExample& at(std::int64_t example) const;
  std::int64_t read_tokens(std::int64_t example, std::int64_t document_tokens) const;

  std::shared_ptr<const ExampleStore> store_;
  ExamplesConfig config_;
  std::vector<std::int32_t> prompt_;
};

}  // namespace infini
