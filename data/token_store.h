// A tokenised split of a corpus on disk: one HDF5 file that carries its tokenizer with it.
//
//   /tokens                    uint16 when the vocabulary fits, else uint32; chunked, Fletcher32
//   /documents/{begin,tokens,bytes,words}   int64, one per document
//   /documents/{name_end,names}             names as UTF-8 bytes one after the other, and where
//                                           each ends
//   /tokenizer                              what Tokenizer::serialise() gave
//   attributes of /                         format, version, split, vocabulary, tokenizer_kind,
//                                           tokenizer_hash, source_hash
// Documents with summaries have more, see data/example_store.h.
//
// Each document is stored as end_of_text, its tokens, end_of_text, so that its first token has
// something to be predicted from and a model learns where texts end. A document of m stored tokens
// has m - 1 scored ones.
//
// After HDF5's own bytes come 32 more, which HDF5 ignores: a mark, the length, and the xxh3 of all
// before. They are checked before HDF5 sees the file, so a store that was truncated, extended or
// has a flipped bit is refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "data/hdf5.h"
#include "data/tokenizer.h"

namespace infini {

struct StoredDocument {
  std::string name;
  std::int64_t begin = 0;   // of its first stored token, an end_of_text, in /tokens
  std::int64_t tokens = 0;  // stored, both end_of_text included
  std::int64_t bytes = 0;   // of its UTF-8 text
  std::int64_t words = 0;   // as Document::words() counts them in its text

  std::int64_t scored_tokens() const { return tokens - 1; }
};

// What tells the text and tokens of a store from those of another: hashes and a count that stand in
// the file, which is not looked through for it as open() does. Throws DataError where there is
// none.
std::string store_identity(const std::filesystem::path& path);

// Reads a store. Holds the table of documents in memory and ranges of tokens only while they are
// asked for. Safe to use from several threads.
class TokenStore {
 public:
  // Throws DataError when the file is missing, damaged, of another version, or not a token store.
  static std::shared_ptr<const TokenStore> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const std::string& split() const { return split_; }
  const std::vector<StoredDocument>& documents() const { return documents_; }
  std::int64_t tokens() const { return tokens_count_; }
  std::int64_t bytes() const;
  std::int64_t words() const;
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  int vocabulary() const { return tokenizer_->vocabulary(); }
  std::uint64_t source_hash() const { return source_hash_; }  // xxh3 over all documents' text
  // Whether its documents have summaries, see data/example_store.h, which reads them from file().
  bool has_examples() const { return file_.contains("examples"); }
  const Hdf5File& file() const { return file_; }

  // Throws DataError unless this store was made with `tokenizer`; `who` names its owner in the
  // message.
  void require_tokenizer(const Tokenizer& tokenizer, const std::string& who) const;

  // Tokens [begin, begin + out.size()). Throws DataError for an id beyond the vocabulary.
  void read(std::int64_t begin, std::span<std::int32_t> out) const;
  std::vector<std::int32_t> read(const StoredDocument& document) const;

 private:
  TokenStore() = default;

  std::filesystem::path path_;
  std::string split_;
  std::vector<StoredDocument> documents_;
  std::int64_t tokens_count_ = 0;
  std::uint64_t source_hash_ = 0;
  std::unique_ptr<const Tokenizer> tokenizer_;
  Hdf5File file_;
  Hdf5Dataset tokens_;
};

// Writes a store under a temporary name; finish() seals it, syncs it and gives it its name. Without
// finish() nothing is left behind.
class TokenStoreWriter {
 public:
  TokenStoreWriter(const std::filesystem::path& path, const Tokenizer& tokenizer,
                   std::string split);
  TokenStoreWriter(const TokenStoreWriter&) = delete;
  TokenStoreWriter& operator=(const TokenStoreWriter&) = delete;
  ~TokenStoreWriter();

  // Adds a document; end_of_text is put on both sides here. Throws DataError for an id beyond the
  // vocabulary.
  void add(const std::string& name, std::int64_t bytes, std::int64_t words,
           std::span<const std::int32_t> tokens);
  void finish(std::uint64_t source_hash);

  std::int64_t documents() const { return documents_; }
  std::int64_t tokens() const { return tokens_; }
  Hdf5File& file() { return file_; }  // for what else belongs in the store, before finish()

 private:
  void put(std::int32_t token);
  void flush_tokens();
  void flush_documents();

  std::filesystem::path path_, temporary_;
  int vocabulary_;
  std::int32_t end_of_text_;
  Hdf5File file_;
  Hdf5Dataset token_data_, begin_, count_, bytes_, words_, name_end_, names_;
  std::vector<std::int32_t> pending_tokens_;
  std::vector<StoredDocument> pending_documents_;
  std::int64_t documents_ = 0, tokens_ = 0, name_bytes_ = 0;
  bool finished_ = false;
};

}  // namespace infini
