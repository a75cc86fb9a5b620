#include "data/prepare.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "data/encode_pool.h"
#include "data/prepare_source.h"
#include "data/seconds_since.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/token_store.h"
#include "tensor/error.h"

namespace infini {
namespace {

using Clock = std::chrono::steady_clock;

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

class PlainSource final : public PrepareSource {
 public:
  explicit PlainSource(const PrepareOptions& options)
      : corpus_(options.corpus, options.format, options.rules()) {}

  std::vector<std::string> splits() const override { return corpus_.splits(); }

  std::string sample(std::int64_t bytes, const ReportProgress& report) const override {
    const std::string split = corpus_.splits().front();
    TextSample text(bytes, size_on_disk(corpus_, split), report);
    const ReadCounts read =
        corpus_.read(split, [&](Document&& document) { return text.add(document.text); });
    check_some(text.documents(), split, read);
    return text.take();
  }

  PreparedSplit encode(const std::string& split, const Tokenizer& tokenizer,
                       const std::filesystem::path& path, int threads,
                       const ReportProgress& report) const override {
    const auto begin = Clock::now();
    PreparedSplit result{.name = split, .path = path};
    TokenStoreWriter store(path, tokenizer, split);
    std::uint64_t source_hash = 0;
    EncodePool pool(tokenizer, threads);

    const auto store_next = [&] {
      const EncodedDocument next = pool.take();
      const std::int64_t bytes = next.document.bytes();
      store.add(next.document.name, bytes, next.words, next.tokens);
      source_hash = chained_hash(source_hash, next.hash);
      ++result.documents;
      result.bytes += bytes;
      result.words += next.words;
      result.tokens += static_cast<std::int64_t>(next.tokens.size());
      result.encode_seconds += next.seconds;
      report({.stage = split, .documents = result.documents, .bytes = result.bytes});
    };
    result.read = corpus_.read(split, [&](Document&& document) {
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

 private:
  Corpus corpus_;
};

std::unique_ptr<Tokenizer> make_tokenizer(const PrepareOptions& options,
                                          const PrepareSource& source,
                                          const ReportProgress& report) {
  if (!options.tokenizer_file.empty()) return read_tokenizer(options.tokenizer_file);
  if (options.tokenizer == TokenizerKind::kByte) return std::make_unique<ByteTokenizer>();
  const std::string text = source.sample(options.sample_bytes, report);
  report({.stage = "tokenizer", .bytes = static_cast<std::int64_t>(text.size())});
  return train_sentencepiece(text, options.vocabulary);
}

}  // namespace

std::unique_ptr<PrepareSource> plain_source(const PrepareOptions& options) {
  return std::make_unique<PlainSource>(options);
}

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
  const bool examples = format == CorpusFormat::kBooksum;
  check<ConfigError>(!examples || where.empty(),
                     "prepare: where looks at the `meta` of JSON lines; format booksum has none");
  check<ConfigError>(examples || level == WantedLevels::kBoth,
                     "prepare: level chooses among the summaries of format booksum; leave it out");
}

namespace {

// What an earlier call left there and this one would leave beside its own: nobody could tell the
// two apart later.
void refuse_beside(const std::filesystem::path& output, std::vector<std::string> others,
                   const std::vector<std::string>& own) {
  std::erase_if(others, [&](const std::string& name) { return std::ranges::count(own, name) > 0; });
  for (const std::string& name : others)
    check<ConfigError>(!std::filesystem::exists(output / name), output.string(), ": holds ", name,
                       ", which is not of this corpus and tokenizer; give another folder, or "
                       "remove it");
}

}  // namespace

PrepareReport prepare(const PrepareOptions& options,
                      const std::function<void(const PrepareProgress&)>& progress) {
  options.validate();
  const ReportProgress report = progress ? progress : [](const PrepareProgress&) {};
  const std::unique_ptr<PrepareSource> source =
      options.format == CorpusFormat::kBooksum ? example_source(options) : plain_source(options);
  const std::filesystem::path output = options.output;
  std::vector<std::string> stores;
  for (const std::string& split : source->splits()) stores.push_back(split + ".h5");
  refuse_beside(output, {"train.h5", "validation.h5", "test.h5"}, stores);
  std::error_code failure;
  std::filesystem::create_directories(output, failure);
  check<DeviceError>(!failure, output.string(), ": cannot be created: ", failure.message());

  PrepareReport result;
  result.threads = options.threads > 0
                       ? options.threads
                       : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const auto begin = Clock::now();
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(options, *source, report);
  result.tokenizer_seconds = seconds_since(begin);
  result.tokenizer = output / tokenizer_file_name(*tokenizer);
  result.tokenizer_hash = tokenizer->hash_text();
  result.vocabulary = tokenizer->vocabulary();
  refuse_beside(output, {"tokenizer.model", "tokenizer.json"}, {tokenizer_file_name(*tokenizer)});
  save_tokenizer(*tokenizer, result.tokenizer);
  for (const std::string& split : source->splits())
    result.splits.push_back(
        source->encode(split, *tokenizer, output / (split + ".h5"), result.threads, report));
  source->finish(output, result);
  return result;
}

}  // namespace infini
