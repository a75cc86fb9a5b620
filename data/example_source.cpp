#include "data/example_source.h"

#include <algorithm>
#include <numeric>

#include "data/permutation.h"
#include "data/random_sites.h"
#include "tensor/error.h"

namespace infini {

ExampleSource::ExampleSource(std::shared_ptr<const ExampleStore> store,
                             const ExamplesConfig& config, const RowShape& shape,
                             std::uint64_t seed, int row_parts)
    : rows_(std::move(store), config),
      config_(config),
      shape_(shape),
      seed_(seed),
      row_quantum_(shape.segment_tokens * row_parts) {
  check_shape(shape_, *rows_.store().documents());
  check(row_parts >= 1, "row_parts must be at least 1, got ", row_parts);
  const std::string path = rows_.store().path().string();
  check<DataError>(rows_.size() > 0, path, ": the store holds no examples");
  check<ConfigError>(shape_.row_tokens % row_quantum_ == 0, "data.row_tokens = ", shape_.row_tokens,
                     " is not divisible by ", row_parts, " parts of segments of ",
                     shape_.segment_tokens, " tokens");
  for (std::int64_t i = 0; i < rows_.size(); ++i) {
    check<ConfigError>(document_limit(i) > 0, "data.row_tokens = ", shape_.row_tokens,
                       " has no room for a document before a prompt of ", rows_.prompt_tokens(),
                       " tokens and a summary of ", rows_.learned_tokens(i),
                       "; data.examples.summary_tokens cuts summaries");
    const std::int64_t read = rows_.row_tokens(i, document_limit(i));
    cut_documents_ += read < rows_.row_tokens(i, 0);
    lengths_.push_back(read - 1);  // the last token is only a target
  }
}

// The first token of a row is an end_of_text, the last one is not read.
std::int64_t ExampleSource::document_limit(std::int64_t example) const {
  const std::int64_t room =
      shape_.row_tokens - rows_.prompt_tokens() - rows_.learned_tokens(example);
  return config_.document_tokens > 0 ? std::min(room, config_.document_tokens) : room;
}

std::int64_t ExampleSource::steps_per_epoch() const {
  return (rows_.size() + shape_.batch_rows - 1) / shape_.batch_rows;
}

std::vector<std::int64_t> ExampleSource::examples_of(std::int64_t step) const {
  const auto epoch = static_cast<std::uint64_t>(step / steps_per_epoch());
  const std::int64_t in_epoch = step % steps_per_epoch();
  const std::int64_t window = in_epoch / config_.sorted_steps;
  const std::int64_t first_step = window * config_.sorted_steps;
  const std::int64_t steps = std::min(config_.sorted_steps, steps_per_epoch() - first_step);
  const std::int64_t begin = first_step * shape_.batch_rows;
  const std::int64_t end = std::min(begin + steps * shape_.batch_rows, rows_.size());

  std::vector<std::int64_t> examples;
  for (std::int64_t place = begin; place < end; ++place)
    examples.push_back(static_cast<std::int64_t>(
        permuted({seed_, epoch, kSiteExampleOrder}, static_cast<std::uint64_t>(place),
                 static_cast<std::uint64_t>(rows_.size()))));
  const auto length = [&](std::int64_t example) {
    return lengths_[static_cast<std::size_t>(example)];
  };
  // The step that lacks rows has the shortest ones.
  std::ranges::stable_sort(examples, std::ranges::greater(), length);

  const RandomKey windows{seed_, epoch, kSiteExampleSteps};
  const RandomKey order{windows.bits(static_cast<std::uint64_t>(window)), 0, kSiteExampleSteps};
  const auto drawn = static_cast<std::int64_t>(permuted(
      order, static_cast<std::uint64_t>(in_epoch - first_step), static_cast<std::uint64_t>(steps)));
  const std::int64_t first = drawn * shape_.batch_rows;
  const std::int64_t last = std::min(first + shape_.batch_rows, end - begin);
  return {examples.begin() + first, examples.begin() + last};
}

SequenceBatch ExampleSource::batch(std::int64_t step, int first_row, int rows) const {
  check_rows(step, first_row, rows);
  const std::vector<std::int64_t> examples = examples_of(step);
  const std::int64_t longest = lengths_[static_cast<std::size_t>(examples.front())];
  const std::int64_t row_tokens = (longest + row_quantum_ - 1) / row_quantum_ * row_quantum_;
  SequenceBatch batch = padded_batch(rows, row_tokens, shape_.segment_tokens,
                                     rows_.store().tokenizer().end_of_text());
  for (int r = 0; r < rows; ++r) {
    batch.resets[static_cast<std::size_t>(r * batch.segments)] = 1;
    const auto place = static_cast<std::size_t>(first_row + r);
    if (place >= examples.size()) continue;
    const ExampleRows::Row row = rows_.row(examples[place], document_limit(examples[place]));
    const std::int64_t begin = r * row_tokens;
    std::copy(row.tokens.begin(), row.tokens.end() - 1, batch.tokens.begin() + begin);
    std::copy(row.tokens.begin() + row.summary_begin, row.tokens.end(),
              batch.targets.begin() + begin + row.summary_begin - 1);
    std::fill_n(batch.keep.begin() + begin, row.tokens.size() - 1, std::uint8_t{1});
  }
  finish_batch(batch);
  return batch;
}

std::string ExampleSource::description() const {
  const TokenStore& store = *rows_.store().documents();
  const std::int64_t longest = *std::ranges::max_element(lengths_);
  std::string line = text(rows_.size(), " examples of ", store.documents().size(), " documents of ",
                          store.path().string(), ": ", steps_per_epoch(), " steps of ",
                          shape_.batch_rows, " rows an epoch, the longest of ", longest, " tokens");
  if (cut_documents_ > 0)
    line += text("; ", cut_documents_, " documents are longer than fits and lose their ",
                 enum_names(config_.cut)[static_cast<std::size_t>(config_.cut)].first);
  return line;
}

}  // namespace infini
