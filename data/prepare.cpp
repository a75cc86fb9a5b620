#include "data/prepare.h"

#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "data/encode_pool.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/token_store.h"
#include "tensor/error.h"

namespace infini {
namespace {

using Clock = std::chrono::steady_clock;
using Report = std::function<void(const PrepareProgress&)>;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// At most `limit` bytes from the front of `text`, not cutting a character of UTF-8.
std::string_view front(std::string_view text, std::int64_t limit) {
  if (static_cast<std::int64_t>(text.size()) <= limit) return text;
  auto end = static_cast<std::size_t>(limit);
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

// Bytes of the files on disk; compressed ones count as they are.
std::int64_t size_on_disk(const Corpus& corpus, const std::string& split) {
  std::int64_t size = 0;
  for (const auto& file : corpus.files(split))
    size += static_cast<std::int64_t>(std::filesystem::file_size(file));
  return size;
}

void check_some(std::int64_t documents, const std::string& split, const ReadCounts& read) {
  check<DataError>(documents > 0, "prepare: no document of the ", split, " split is left: ",
                   read.skipped() > 0 || read.cut_files > 0 ? read.summary() : "there is none");
}

// Text to train a tokenizer on: the beginning of every document, in the same proportion, so that a
// sample smaller than the corpus still comes from all of it.
std::string sample(const Corpus& corpus, const std::string& split, std::int64_t bytes,
                   const Report& report) {
  const auto disk = static_cast<double>(std::max<std::int64_t>(size_on_disk(corpus, split), 1));
  const double share = std::min(1.0, static_cast<double>(bytes) / disk);
  std::string text;
  PrepareProgress progress{.stage = "sample"};
  const ReadCounts read = corpus.read(split, [&](Document&& document) {
    const auto wanted =
        static_cast<std::int64_t>(share * static_cast<double>(document.bytes())) + 1;
    const auto left = bytes - static_cast<std::int64_t>(text.size());
    text += front(document.text, std::min(wanted, left));
    ++progress.documents;
    progress.bytes = static_cast<std::int64_t>(text.size());
    report(progress);
    return progress.bytes + 4 < bytes;
  });
  check_some(progress.documents, split, read);
  return text;
}

std::unique_ptr<Tokenizer> make_tokenizer(const PrepareOptions& options, const Corpus& corpus,
                                          const Report& report) {
  if (!options.tokenizer_file.empty()) return read_tokenizer(options.tokenizer_file);
  if (options.tokenizer == TokenizerKind::kByte) return std::make_unique<ByteTokenizer>();
  const std::string text = sample(corpus, corpus.splits().front(), options.sample_bytes, report);
  report({.stage = "tokenizer", .bytes = static_cast<std::int64_t>(text.size())});
  return train_sentencepiece(text, options.vocabulary);
}

PreparedSplit encode_split(const Corpus& corpus, const std::string& split,
                           const Tokenizer& tokenizer, const std::filesystem::path& path,
                           int threads, const Report& report) {
  const auto begin = Clock::now();
  PreparedSplit result{.name = split, .path = path};
  TokenStoreWriter store(path, tokenizer, split);
  std::uint64_t source_hash = 0;
  EncodePool pool(tokenizer, threads);

  const auto store_next = [&] {
    const EncodedDocument next = pool.take();
    const std::int64_t bytes = next.document.bytes();
    store.add(next.document.name, bytes, next.words, next.tokens);
    const std::uint64_t pair[] = {source_hash, next.hash};
    source_hash = XXH3_64bits(pair, sizeof pair);
    ++result.documents;
    result.bytes += bytes;
    result.words += next.words;
    result.tokens += static_cast<std::int64_t>(next.tokens.size());
    result.encode_seconds += next.seconds;
    report({.stage = split, .documents = result.documents, .bytes = result.bytes});
  };
  result.read = corpus.read(split, [&](Document&& document) {
    if (pool.full()) store_next();
    pool.submit(std::move(document));
    return true;
  });
  while (!pool.empty()) store_next();
  check_some(result.documents, split, result.read);
  store.finish(source_hash);
  result.seconds = seconds_since(begin);
  return result;
}

}  // namespace

CorpusRules PrepareOptions::rules() const {
  CorpusRules rules{.broken = broken, .invalid_utf8 = invalid_utf8};
  for (const std::string& rule : where) {
    const auto [key, value] = parse_where(rule);
    check<ConfigError>(rules.where.emplace(key, value).second, "where: ", key,
                       " is asked for twice, and a `meta` has it once");
  }
  return rules;
}

void PrepareOptions::validate() const {
  check<ConfigError>(!corpus.empty(), "prepare: corpus must name a folder or a file of texts");
  check<ConfigError>(!output.empty(), "prepare: output must name a folder");
  check<ConfigError>(vocabulary >= kSmallestVocabulary, "prepare: vocabulary must be at least ",
                     kSmallestVocabulary, " (256 bytes, markers and some characters), got ",
                     vocabulary);
  check<ConfigError>(sample_bytes > 0, "prepare: sample_bytes must be positive, got ",
                     sample_bytes);
  check<ConfigError>(threads >= 0, "prepare: threads must not be negative, got ", threads);
  rules().validate();
}

PrepareReport prepare(const PrepareOptions& options,
                      const std::function<void(const PrepareProgress&)>& progress) {
  options.validate();
  const Report report = progress ? progress : [](const PrepareProgress&) {};
  const Corpus corpus(options.corpus, options.format, options.rules());
  const std::filesystem::path output = options.output;
  std::error_code failure;
  std::filesystem::create_directories(output, failure);
  check<DeviceError>(!failure, output.string(), ": cannot be created: ", failure.message());

  PrepareReport result;
  result.threads = options.threads > 0
                       ? options.threads
                       : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const auto begin = Clock::now();
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(options, corpus, report);
  result.tokenizer_seconds = seconds_since(begin);
  result.tokenizer = output / tokenizer_file_name(*tokenizer);
  result.tokenizer_hash = tokenizer->hash_text();
  result.vocabulary = tokenizer->vocabulary();
  save_tokenizer(*tokenizer, result.tokenizer);
  for (const std::string& split : corpus.splits())
    result.splits.push_back(
        encode_split(corpus, split, *tokenizer, output / (split + ".h5"), result.threads, report));
  return result;
}

}  // namespace infini
