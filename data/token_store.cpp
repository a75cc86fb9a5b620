#include "data/token_store.h"

#include <algorithm>
#include <utility>

#include "data/durable_file.h"
#include "data/seal.h"
#include "tensor/error.h"

namespace infini {
namespace {

constexpr const char* kFormat = "infini-token-store";
constexpr std::int64_t kVersion = 1;

std::string hex_of(const Tokenizer& tokenizer) { return tokenizer.hash_text(); }

std::vector<StoredDocument> read_documents(const Hdf5File& file, const std::string& who) {
  const auto column = [&](const char* name) {
    return file.read_all<std::int64_t>(std::string("documents/") + name).values;
  };
  const auto begin = column("begin"), tokens = column("tokens"), bytes = column("bytes"),
             words = column("words"), name_end = column("name_end");
  const auto names = file.read_all<std::uint8_t>("documents/names").values;
  const std::size_t count = begin.size();
  check<DataError>(tokens.size() == count && bytes.size() == count && words.size() == count &&
                       name_end.size() == count,
                   who, ": the columns of /documents differ in length");
  std::vector<StoredDocument> documents(count);
  std::int64_t name_begin = 0, token_begin = 0;
  for (std::size_t i = 0; i < count; ++i) {
    check<DataError>(begin[i] == token_begin && tokens[i] >= 2 && name_end[i] >= name_begin &&
                         name_end[i] <= static_cast<std::int64_t>(names.size()),
                     who, ": document ", i, " has an impossible place");
    documents[i] = {.name = {names.begin() + name_begin, names.begin() + name_end[i]},
                    .begin = begin[i],
                    .tokens = tokens[i],
                    .bytes = bytes[i],
                    .words = words[i]};
    name_begin = name_end[i];
    token_begin += tokens[i];
  }
  return documents;
}

}  // namespace

std::string store_identity(const std::filesystem::path& path) {
  const Hdf5File file = Hdf5File::open(path);
  return text(hash_digits(file.attribute<std::uint64_t>("/", "source_hash")), " ",
              file.text_attribute("/", "tokenizer_hash"), " ", file.dataset("tokens").elements());
}

std::shared_ptr<const TokenStore> TokenStore::open(const std::filesystem::path& path) {
  const std::string who = path.string();
  check_seal(path, "token store");
  std::shared_ptr<TokenStore> store(new TokenStore);
  store->path_ = path;
  store->file_ = Hdf5File::open(path);
  const Hdf5File& file = store->file_;
  check<DataError>(
      file.has_attribute("/", "format") && file.text_attribute("/", "format") == kFormat, who,
      ": is not a token store");
  const auto version = file.attribute<std::int64_t>("/", "version");
  check<DataError>(version == kVersion, who, ": token store version ", version,
                   ", this build reads ", kVersion, "; run `infini prepare` again");
  store->split_ = file.text_attribute("/", "split");
  store->source_hash_ = file.attribute<std::uint64_t>("/", "source_hash");
  const auto bytes = file.read_all<std::uint8_t>("tokenizer").values;
  store->tokenizer_ =
      load_tokenizer({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, who);
  check<DataError>(store->tokenizer_->hash_text() == file.text_attribute("/", "tokenizer_hash"),
                   who, ": its tokenizer does not have the hash that is written beside it");
  store->documents_ = read_documents(file, who);
  store->tokens_ = file.dataset("tokens");
  store->tokens_count_ = store->tokens_.elements();
  const std::int64_t expected =
      store->documents_.empty() ? 0
                                : store->documents_.back().begin + store->documents_.back().tokens;
  check<DataError>(store->tokens_count_ == expected, who, ": holds ", store->tokens_count_,
                   " tokens, its documents add up to ", expected);
  return store;
}

std::int64_t TokenStore::bytes() const {
  std::int64_t sum = 0;
  for (const StoredDocument& document : documents_) sum += document.bytes;
  return sum;
}

std::int64_t TokenStore::words() const {
  std::int64_t sum = 0;
  for (const StoredDocument& document : documents_) sum += document.words;
  return sum;
}

void TokenStore::require_tokenizer(const Tokenizer& tokenizer, const std::string& who) const {
  check<DataError>(tokenizer.hash() == tokenizer_->hash(), path_.string(),
                   ": was made with another tokenizer (", tokenizer_->kind(), ", ", vocabulary(),
                   " ids, hash ", hex_of(*tokenizer_), ") than ", who, " (", tokenizer.kind(), ", ",
                   tokenizer.vocabulary(), " ids, hash ", hex_of(tokenizer), ")");
}

void TokenStore::read(std::int64_t begin, std::span<std::int32_t> out) const {
  tokens_.read_range(begin, out);
  const std::uint32_t limit = static_cast<std::uint32_t>(vocabulary());
  for (std::size_t i = 0; i < out.size(); ++i)
    check<DataError>(static_cast<std::uint32_t>(out[i]) < limit, path_.string(), ": token id ",
                     out[i], " at ", begin + static_cast<std::int64_t>(i),
                     " is beyond the vocabulary of ", limit);
}

std::vector<std::int32_t> TokenStore::read(const StoredDocument& document) const {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(document.tokens));
  read(document.begin, tokens);
  return tokens;
}

// ---- TokenStoreWriter

TokenStoreWriter::TokenStoreWriter(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                   std::string split)
    : path_(path),
      temporary_(temporary_name(path)),
      vocabulary_(tokenizer.vocabulary()),
      end_of_text_(tokenizer.end_of_text()),
      file_(Hdf5File::create(temporary_)) {
  const std::int64_t empty = 0;
  const std::span<const std::int64_t> dims(&empty, 1);
  const Hdf5Layout many{.chunk_elements = 1 << 15, .extendable = true};
  const Hdf5Layout few{.chunk_elements = 1 << 11, .extendable = true};
  token_data_ = vocabulary_ <= 0x10000 ? file_.create_dataset<std::uint16_t>("tokens", dims, many)
                                       : file_.create_dataset<std::uint32_t>("tokens", dims, many);
  begin_ = file_.create_dataset<std::int64_t>("documents/begin", dims, few);
  count_ = file_.create_dataset<std::int64_t>("documents/tokens", dims, few);
  bytes_ = file_.create_dataset<std::int64_t>("documents/bytes", dims, few);
  words_ = file_.create_dataset<std::int64_t>("documents/words", dims, few);
  name_end_ = file_.create_dataset<std::int64_t>("documents/name_end", dims, few);
  names_ = file_.create_dataset<std::uint8_t>("documents/names", dims, few);
  const std::string definition = tokenizer.serialise();
  file_.write("tokenizer", std::vector<std::uint8_t>(definition.begin(), definition.end()));
  file_.set_attribute("/", "format", kFormat);
  file_.set_attribute("/", "version", kVersion);
  file_.set_attribute("/", "split", split);
  file_.set_attribute("/", "vocabulary", std::int64_t{vocabulary_});
  file_.set_attribute("/", "tokenizer_kind", std::string(tokenizer.kind()));
  file_.set_attribute("/", "tokenizer_hash", tokenizer.hash_text());
}

TokenStoreWriter::~TokenStoreWriter() {
  if (finished_) return;
  // Datasets first: where the disk is full the file cannot be closed, and they with it.
  for (Hdf5Dataset* data : {&token_data_, &begin_, &count_, &bytes_, &words_, &name_end_, &names_})
    *data = Hdf5Dataset();
  file_ = Hdf5File();
  std::error_code ignored;
  std::filesystem::remove(temporary_, ignored);
}

void TokenStoreWriter::put(std::int32_t token) {
  check<DataError>(token >= 0 && token < vocabulary_, path_.string(), ": token id ", token,
                   " is beyond the vocabulary of ", vocabulary_);
  pending_tokens_.push_back(token);
  if (pending_tokens_.size() >= std::size_t{1} << 20) flush_tokens();
}

void TokenStoreWriter::add(const std::string& name, std::int64_t bytes, std::int64_t words,
                           std::span<const std::int32_t> tokens) {
  put(end_of_text_);
  for (const std::int32_t token : tokens) put(token);
  put(end_of_text_);
  const auto stored = static_cast<std::int64_t>(tokens.size()) + 2;
  pending_documents_.push_back(
      {.name = name, .begin = tokens_, .tokens = stored, .bytes = bytes, .words = words});
  tokens_ += stored;
  ++documents_;
  if (pending_documents_.size() >= 4096) flush_documents();
}

void TokenStoreWriter::flush_tokens() {
  token_data_.append(std::span<const std::int32_t>(pending_tokens_));
  pending_tokens_.clear();
}

void TokenStoreWriter::flush_documents() {
  const auto append = [&](Hdf5Dataset& data, std::int64_t StoredDocument::*member) {
    std::vector<std::int64_t> column;
    for (const StoredDocument& document : pending_documents_) column.push_back(document.*member);
    data.append(std::span<const std::int64_t>(column));
  };
  append(begin_, &StoredDocument::begin);
  append(count_, &StoredDocument::tokens);
  append(bytes_, &StoredDocument::bytes);
  append(words_, &StoredDocument::words);
  std::vector<std::int64_t> ends;
  std::vector<std::uint8_t> names;
  for (const StoredDocument& document : pending_documents_) {
    names.insert(names.end(), document.name.begin(), document.name.end());
    ends.push_back(name_bytes_ += static_cast<std::int64_t>(document.name.size()));
  }
  name_end_.append(std::span<const std::int64_t>(ends));
  names_.append(std::span<const std::uint8_t>(names));
  pending_documents_.clear();
}

void TokenStoreWriter::finish(std::uint64_t source_hash) {
  flush_tokens();
  flush_documents();
  file_.set_attribute("/", "source_hash", source_hash);
  file_.close();
  write_seal(temporary_);
  publish_file(temporary_, path_);
  finished_ = true;
}

}  // namespace infini
