#include "data/example_store.h"

#include <functional>
#include <utility>

#include "tensor/error.h"

namespace infini {

std::shared_ptr<const ExampleStore> ExampleStore::open(const std::filesystem::path& path) {
  return of(TokenStore::open(path));
}

std::shared_ptr<const ExampleStore> ExampleStore::of(std::shared_ptr<const TokenStore> store) {
  check<DataError>(store->has_examples(), store->path().string(),
                   ": is a plain corpus, its documents have no summaries; expected examples, which "
                   "`infini prepare --format booksum` makes");
  std::shared_ptr<ExampleStore> result(new ExampleStore);
  result->store_ = std::move(store);
  result->read_examples(result->store_->file());
  return result;
}

void ExampleStore::read_examples(const Hdf5File& file) {
  const std::string who = path().string();
  const auto column = [&](const char* name) {
    return file.read_all<std::int64_t>(std::string("examples/") + name).values;
  };
  const auto document = column("document"), level = column("level"), begin = column("begin"),
             tokens = column("tokens"), text_end = column("text_end"),
             source_end = column("source_end");
  const auto sources = file.read_all<std::uint8_t>("examples/sources").values;
  summaries_ = file.dataset("examples/summaries");
  texts_ = file.dataset("examples/texts");
  const std::size_t count = document.size();
  for (const auto* other : {&level, &begin, &tokens, &text_end, &source_end})
    check<DataError>(other->size() == count, who, ": the columns of /examples differ in length");
  const auto documents = static_cast<std::int64_t>(store_->documents().size());
  const auto levels = static_cast<std::int64_t>(kSummaryLevels);
  std::int64_t next = 0, text_begin = 0, source_begin = 0;
  for (std::size_t i = 0; i < count; ++i) {
    check<DataError>(document[i] >= 0 && document[i] < documents && level[i] >= 0 &&
                         level[i] < levels && begin[i] == next && tokens[i] >= 0 &&
                         text_end[i] >= text_begin && source_end[i] >= source_begin &&
                         source_end[i] <= static_cast<std::int64_t>(sources.size()),
                     who, ": example ", i, " has an impossible place");
    examples_.push_back(
        {.document = document[i],
         .level = static_cast<SummaryLevel>(level[i]),
         .source = {sources.begin() + source_begin, sources.begin() + source_end[i]},
         .begin = begin[i],
         .tokens = tokens[i],
         .text_begin = text_begin,
         .text_bytes = text_end[i] - text_begin});
    next += tokens[i];
    text_begin = text_end[i];
    source_begin = source_end[i];
  }
  check<DataError>(summaries_.elements() == next && texts_.elements() == text_begin, who,
                   ": its examples add up to ", next, " tokens and ", text_begin, " bytes, it has ",
                   summaries_.elements(), " and ", texts_.elements());
}

std::vector<std::int32_t> ExampleStore::summary_tokens(const StoredExample& example) const {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(example.tokens));
  summaries_.read_range(example.begin, std::span(tokens));
  for (const std::int32_t token : tokens)
    check<DataError>(token >= 0 && token < store_->vocabulary(), path().string(), ": token id ",
                     token, " of a summary is beyond the vocabulary of ", store_->vocabulary());
  return tokens;
}

void ExampleStore::read_document(const StoredExample& example, std::int64_t begin,
                                 std::span<std::int32_t> out) const {
  check(begin >= 0 && begin + static_cast<std::int64_t>(out.size()) <= document_tokens(example),
        path().string(), ": tokens ", begin, " to ", begin + static_cast<std::int64_t>(out.size()),
        " asked of a document of ", document_tokens(example));
  store_->read(document_of(example).begin + 1 + begin, out);
}

std::string ExampleStore::summary_text(const StoredExample& example) const {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(example.text_bytes));
  texts_.read_range(example.text_begin, std::span(bytes));
  return {bytes.begin(), bytes.end()};
}

// ---- ExampleStoreWriter

ExampleStoreWriter::ExampleStoreWriter(const std::filesystem::path& path,
                                       const Tokenizer& tokenizer, std::string split)
    : store_(path, tokenizer, std::move(split)), vocabulary_(tokenizer.vocabulary()) {
  Hdf5File& file = store_.file();
  const std::int64_t empty = 0;
  const std::span<const std::int64_t> dims(&empty, 1);
  const Hdf5Layout many{.chunk_elements = 1 << 15, .extendable = true};
  const Hdf5Layout few{.chunk_elements = 1 << 11, .extendable = true};
  const auto column = [&](const char* name) {
    return file.create_dataset<std::int64_t>(std::string("examples/") + name, dims, few);
  };
  document_ = column("document");
  level_ = column("level");
  begin_ = column("begin");
  tokens_ = column("tokens");
  text_end_ = column("text_end");
  source_end_ = column("source_end");
  summaries_ = file.create_dataset<std::uint32_t>("examples/summaries", dims, many);
  texts_ = file.create_dataset<std::uint8_t>("examples/texts", dims, many);
  sources_ = file.create_dataset<std::uint8_t>("examples/sources", dims, few);
}

std::int64_t ExampleStoreWriter::add_document(const std::string& name, std::int64_t bytes,
                                              std::int64_t words,
                                              std::span<const std::int32_t> tokens) {
  store_.add(name, bytes, words, tokens);
  return store_.documents() - 1;
}

void ExampleStoreWriter::add_example(std::int64_t document, SummaryLevel level,
                                     const Summary& summary, std::span<const std::int32_t> tokens) {
  check(document >= 0 && document < store_.documents(), "example of document ", document,
        ", there are ", store_.documents());
  for (const std::int32_t token : tokens)
    check<DataError>(token >= 0 && token < vocabulary_, "token id ", token,
                     " of a summary is beyond the vocabulary of ", vocabulary_);
  const auto count = static_cast<std::int64_t>(tokens.size());
  const auto bytes = static_cast<std::int64_t>(summary.text.size());
  pending_.push_back({.document = document,
                      .level = level,
                      .source = summary.source,
                      .begin = summary_tokens_,
                      .tokens = count,
                      .text_begin = text_bytes_,
                      .text_bytes = bytes});
  pending_tokens_.insert(pending_tokens_.end(), tokens.begin(), tokens.end());
  pending_texts_ += summary.text;
  summary_tokens_ += count;
  text_bytes_ += bytes;
  if (pending_.size() >= 1024) flush();
}

void ExampleStoreWriter::flush() {
  const auto append = [&](Hdf5Dataset& data, auto value) {
    std::vector<std::int64_t> column;
    for (const StoredExample& example : pending_)
      column.push_back(static_cast<std::int64_t>(std::invoke(value, example)));
    data.append(std::span<const std::int64_t>(column));
  };
  append(document_, &StoredExample::document);
  append(level_, &StoredExample::level);
  append(begin_, &StoredExample::begin);
  append(tokens_, &StoredExample::tokens);
  append(text_end_, [](const StoredExample& e) { return e.text_begin + e.text_bytes; });
  append(source_end_, [&](const StoredExample& e) {
    return source_bytes_ += static_cast<std::int64_t>(e.source.size());
  });
  const auto append_bytes = [](Hdf5Dataset& data, const std::string& bytes) {
    data.append(std::span(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()));
  };
  std::string sources;
  for (const StoredExample& example : pending_) sources += example.source;
  append_bytes(sources_, sources);
  append_bytes(texts_, pending_texts_);
  summaries_.append(std::span<const std::int32_t>(pending_tokens_));
  pending_.clear();
  pending_tokens_.clear();
  pending_texts_.clear();
}

void ExampleStoreWriter::finish(std::uint64_t source_hash) {
  flush();
  store_.finish(source_hash);
}

}  // namespace infini
