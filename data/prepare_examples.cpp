// Documents with summaries to example stores.
#include <xxhash.h>

#include <chrono>
#include <deque>
#include <fstream>
#include <map>
#include <utility>

#include "data/encode_pool.h"
#include "data/example_store.h"
#include "data/prepare_source.h"
#include "data/seconds_since.h"
#include "data/summaries.h"
#include "tensor/error.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// Tells texts apart; a table of all texts themselves would be the corpus.
using TextHash = std::pair<std::uint64_t, std::uint64_t>;
TextHash hash_of(const std::string& text) {
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return {hash.high64, hash.low64};
}

// Writes one split. Documents and summaries go through the pool in one order and come back in it.
class SplitEncoder {
 public:
  SplitEncoder(PreparedSplit& result, const Tokenizer& tokenizer, int threads,
               const ReportProgress& report)
      : result_(result),
        store_(result.path, tokenizer, result.name),
        pool_(tokenizer, threads),
        report_(report) {}

  void add(SummarizedDocument&& document) {
    const auto [place, fresh] = documents_.emplace(hash_of(document.document.text), known_);
    const std::int64_t index = place->second;
    if (fresh) {
      ++known_;
      submit({.document = -1}, std::move(document.document));
    }
    for (Summary& summary : document.summaries) {
      Document text{.name = {}, .title = {}, .text = std::move(summary.text)};
      submit({.document = index, .level = document.level, .source = std::move(summary.source)},
             std::move(text));
    }
  }

  // False, and no file: there was nothing.
  bool finish() {
    while (!pool_.empty()) store_next();
    if (result_.examples == 0) return false;
    store_.finish(source_hash_);
    return true;
  }

 private:
  struct Item {
    std::int64_t document = -1;  // of a summary; -1: this is a document
    SummaryLevel level = SummaryLevel::kBook;
    std::string source = {};
  };

  void submit(Item item, Document&& text) {
    if (pool_.full()) store_next();
    items_.push_back(std::move(item));
    pool_.submit(std::move(text));
  }

  void store_next() {
    EncodedDocument next = pool_.take();
    const Item item = std::move(items_.front());
    items_.pop_front();
    const auto tokens = static_cast<std::int64_t>(next.tokens.size());
    source_hash_ = chained_hash(source_hash_, next.hash);
    result_.encode_seconds += next.seconds;
    if (item.document >= 0) {
      store_.add_example(item.document, item.level,
                         {.source = item.source, .text = std::move(next.document.text)},
                         next.tokens);
      ++result_.examples;
      result_.summary_tokens += tokens;
      return;
    }
    const std::int64_t bytes = next.document.bytes();
    store_.add_document(next.document.name, bytes, next.words, next.tokens);
    ++result_.documents;
    result_.bytes += bytes;
    result_.words += next.words;
    result_.tokens += tokens;
    report_({.stage = result_.name, .documents = result_.documents, .bytes = result_.bytes});
  }

  PreparedSplit& result_;
  ExampleStoreWriter store_;
  EncodePool pool_;
  const ReportProgress& report_;
  std::map<TextHash, std::int64_t> documents_;  // to their index in the store
  std::int64_t known_ = 0;
  std::deque<Item> items_;  // what is in the pool
  std::uint64_t source_hash_ = 0;
};

class SummarySource final : public PrepareSource {
 public:
  explicit SummarySource(const PrepareOptions& options)
      : output_(options.output),
        corpus_(open_summaries(options.corpus, {.broken = options.broken,
                                                .invalid_utf8 = options.invalid_utf8,
                                                .levels = options.level})) {}

  std::vector<std::string> splits() const override { return corpus_->splits(); }

  std::string sample(std::int64_t bytes, const ReportProgress& report) const override {
    PrepareReport found;
    for (const std::string& split : corpus_->splits()) {
      TextSample text(bytes, corpus_->bytes_on_disk(split), report);
      PreparedSplit& result = found.splits.emplace_back();
      result.name = split;
      result.summaries = corpus_->read(split, [&](SummarizedDocument&& document) {
        bool more = text.add(document.document.text);
        for (const Summary& summary : document.summaries) more = more && text.add(summary.text);
        return more;
      });
      if (text.documents() > 0) return text.take();
    }
    finish(output_, found);
    return {};
  }

  PreparedSplit encode(const std::string& split, const Tokenizer& tokenizer, const fs::path& path,
                       int threads, const ReportProgress& report) const override {
    const auto begin = Clock::now();
    PreparedSplit result;
    result.name = split;
    result.path = path;
    SplitEncoder encoder(result, tokenizer, threads, report);
    result.summaries = corpus_->read(split, [&](SummarizedDocument&& document) {
      encoder.add(std::move(document));
      return true;
    });
    result.read = result.summaries.read;
    if (!encoder.finish()) {
      std::error_code ignored;  // an older one would pass for this one
      fs::remove(path, ignored);
      result.path.clear();
    }
    result.seconds = seconds_since(begin);
    return result;
  }

  // Lists what was missing, and refuses where nothing is left.
  void finish(const fs::path& output, PrepareReport& report) const override {
    const fs::path list = output / "missing.txt";
    std::error_code ignored;
    fs::remove(list, ignored);
    std::int64_t examples = 0, missing = 0;
    std::string lines, why;
    for (const PreparedSplit& split : report.splits) {
      examples += split.examples;
      missing += static_cast<std::int64_t>(split.summaries.missing.size());
      for (const std::string& path : split.summaries.missing)
        lines += split.name + "\t" + path + "\n";
      if (const std::string said = split.summaries.summary(); !said.empty())
        why += text(why.empty() ? "" : "; ", split.name, ": ", said);
    }
    if (missing > 0) {
      std::ofstream file(list, std::ios::binary);
      file << lines;
      file.close();
      check<DeviceError>(file.good(), list.string(), ": cannot be written");
      report.missing = list;
      why += text("; ", list.string(), " lists the missing files");
    }
    check<DataError>(examples > 0,
                     "prepare: no example is left: ", why.empty() ? "there is none" : why);
  }

 private:
  fs::path output_;
  std::unique_ptr<SummaryReader> corpus_;
};

}  // namespace

std::unique_ptr<PrepareSource> example_source(const PrepareOptions& options) {
  return std::make_unique<SummarySource>(options);
}

}  // namespace infini
