#include "data/example_rows.h"

#include <algorithm>

#include "tensor/error.h"

namespace infini {

ExampleRows::ExampleRows(std::shared_ptr<const ExampleStore> store, const ExamplesConfig& config)
    : store_(std::move(store)),
      config_(config),
      prompt_(store_->tokenizer().encode(config.prompt)) {
  config_.validate();
}

const StoredExample& ExampleRows::at(std::int64_t example) const {
  check(example >= 0 && example < size(), store_->path().string(), ": example ", example,
        " asked, there are ", size());
  return store_->examples()[static_cast<std::size_t>(example)];
}

std::int64_t ExampleRows::read_tokens(std::int64_t example, std::int64_t document_tokens) const {
  const std::int64_t whole = store_->document_tokens(at(example));
  return document_tokens > 0 ? std::min(whole, document_tokens) : whole;
}

std::vector<std::int32_t> ExampleRows::prompt(std::int64_t example,
                                              std::int64_t document_tokens) const {
  const StoredExample& stored = at(example);
  const std::int64_t whole = store_->document_tokens(stored);
  const std::int64_t count = read_tokens(example, document_tokens);
  // The larger half of what is read stands before the gap.
  const std::int64_t before = config_.cut == DocumentCut::kMiddle ? count - count / 2 : count;
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(1 + count));
  tokens[0] = store_->tokenizer().end_of_text();
  const std::span<std::int32_t> document = std::span(tokens).subspan(1);
  store_->read_document(stored, 0, document.first(static_cast<std::size_t>(before)));
  store_->read_document(stored, whole - (count - before),
                        document.subspan(static_cast<std::size_t>(before)));
  tokens.insert(tokens.end(), prompt_.begin(), prompt_.end());
  return tokens;
}

std::string ExampleRows::reference(std::int64_t example) const {
  return store_->summary_text(at(example));
}

ExampleRows::Row ExampleRows::row(std::int64_t example, std::int64_t document_tokens) const {
  Row row{.tokens = prompt(example, document_tokens)};
  row.summary_begin = static_cast<std::int64_t>(row.tokens.size());
  std::vector<std::int32_t> summary = store_->summary_tokens(at(example));
  summary.push_back(store_->tokenizer().end_of_text());
  summary.resize(static_cast<std::size_t>(learned_tokens(example)));
  row.tokens.insert(row.tokens.end(), summary.begin(), summary.end());
  return row;
}

std::int64_t ExampleRows::learned_tokens(std::int64_t example) const {
  const std::int64_t summary = at(example).tokens;
  return summary > config_.summary_tokens ? config_.summary_tokens : summary + 1;
}

std::int64_t ExampleRows::row_tokens(std::int64_t example, std::int64_t document_tokens) const {
  return 1 + read_tokens(example, document_tokens) + prompt_tokens() + learned_tokens(example);
}

}  // namespace infini
