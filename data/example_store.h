// A token store whose documents have summaries: examples of (document, summary).
//
// What token_store.h says, and
//   /examples/{document,level,begin,tokens,text_end,source_end}   int64, one per example
//   /examples/summaries            token ids of the summaries, without end_of_text
//   /examples/{texts,sources}      UTF-8 bytes one after the other
// A document stands there once, however many summaries it has, so the same file is also a plain
// corpus of its documents.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/summaries.h"
#include "data/token_store.h"

namespace infini {

struct StoredExample {
  std::int64_t document = 0;  // index in TokenStore::documents()
  SummaryLevel level = SummaryLevel::kBook;
  std::string source;
  std::int64_t begin = 0;   // of its summary among those of all examples
  std::int64_t tokens = 0;  // of its summary
  std::int64_t text_begin = 0, text_bytes = 0;
};

// Reads such a store. Holds the tables in memory, tokens and texts only while they are asked for.
// Safe to use from several threads.
class ExampleStore {
 public:
  // Throws DataError as TokenStore::open() does, and for a plain corpus.
  static std::shared_ptr<const ExampleStore> open(const std::filesystem::path& path);
  // The same of a store that is open.
  static std::shared_ptr<const ExampleStore> of(std::shared_ptr<const TokenStore> store);

  const std::shared_ptr<const TokenStore>& documents() const { return store_; }
  const std::filesystem::path& path() const { return store_->path(); }
  const Tokenizer& tokenizer() const { return store_->tokenizer(); }
  const std::vector<StoredExample>& examples() const { return examples_; }
  const StoredDocument& document_of(const StoredExample& example) const {
    return store_->documents()[static_cast<std::size_t>(example.document)];
  }

  // Throw DataError for an id beyond the vocabulary.
  std::vector<std::int32_t> summary_tokens(const StoredExample& example) const;
  // Tokens [begin, begin + out.size()) of the document's text, end_of_text left out.
  void read_document(const StoredExample& example, std::int64_t begin,
                     std::span<std::int32_t> out) const;
  std::int64_t document_tokens(const StoredExample& example) const {
    return document_of(example).tokens - 2;
  }
  std::string summary_text(const StoredExample& example) const;

 private:
  ExampleStore() = default;
  void read_examples(const Hdf5File& file);

  std::shared_ptr<const TokenStore> store_;
  std::vector<StoredExample> examples_;
  Hdf5Dataset summaries_, texts_;
};

// Writes such a store as TokenStoreWriter does a plain one.
class ExampleStoreWriter {
 public:
  ExampleStoreWriter(const std::filesystem::path& path, const Tokenizer& tokenizer,
                     std::string split);

  // The index that add_example() knows the document by.
  std::int64_t add_document(const std::string& name, std::int64_t bytes, std::int64_t words,
                            std::span<const std::int32_t> tokens);
  // Throws DataError for an id beyond the vocabulary.
  void add_example(std::int64_t document, SummaryLevel level, const Summary& summary,
                   std::span<const std::int32_t> tokens);
  void finish(std::uint64_t source_hash);

 private:
  void flush();

  TokenStoreWriter store_;
  int vocabulary_;
  Hdf5Dataset document_, level_, begin_, tokens_, text_end_, source_end_, summaries_, texts_,
      sources_;
  std::vector<StoredExample> pending_;
  std::vector<std::int32_t> pending_tokens_;
  std::string pending_texts_;
  std::int64_t summary_tokens_ = 0, text_bytes_ = 0, source_bytes_ = 0;
};

}  // namespace infini
