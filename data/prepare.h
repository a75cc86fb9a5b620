// Corpus to token stores: what `infini prepare` does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/corpus.h"
#include "data/summaries.h"
#include "data/tokenizer.h"

namespace infini {

enum class TokenizerKind { kSentencePiece, kByte };
constexpr std::array<std::pair<std::string_view, TokenizerKind>, 2> enum_names(TokenizerKind) {
  return {{{"sentencepiece", TokenizerKind::kSentencePiece}, {"byte", TokenizerKind::kByte}}};
}

struct PrepareOptions {
  std::string corpus = {};  // a folder or a file, see data/corpus.h and data/summaries.h
  std::string output = {};  // folder for train.h5, validation.h5, test.h5 and tokenizer.model
  CorpusFormat format = CorpusFormat::kAuto;
  TokenizerKind tokenizer = TokenizerKind::kSentencePiece;
  std::string tokenizer_file = {};  // use this one instead of training
  int vocabulary = 8192;
  std::int64_t sample_bytes = 16 << 20;
  int threads = 0;
  OnFault broken = OnFault::kRefuse;
  OnFault invalid_utf8 = OnFault::kKeep;
  std::vector<std::string> where = {};
  WantedLevels level = WantedLevels::kBoth;

  template <class Visitor>
  void visit(Visitor& field) {
    field("corpus", corpus,
          "folder or file of texts: PG19 layout, .txt or .jsonl, plain, .gz or .zst");
    field("output", output, "folder for the token stores and the tokenizer");
    field("format", format, "layout of the corpus; auto looks at what is there");
    field("tokenizer", tokenizer, "sentencepiece: a lossless byte-pair encoding; byte: 256 bytes");
    field("tokenizer_file", tokenizer_file, "use this tokenizer instead of training one");
    field("vocabulary", vocabulary, "pieces of a trained tokenizer, bytes included");
    field("sample_bytes", sample_bytes,
          "text to train the tokenizer on, spread over the training split");
    field("threads", threads, "encoding threads; 0: one per core");
    field("broken", broken, "lines that are no document and damaged files: refuse, or skip");
    field("invalid_utf8", invalid_utf8, "texts that are not UTF-8: keep their bytes, skip, refuse");
    field("where", where, "key=value that the `meta` of a line must have to be taken; all of them");
    field("level", level, "summaries of format booksum to take: of books, of chapters, or both");
  }
  CorpusRules rules() const;
  void validate() const;
};

// How far a run is. Documents and bytes are those of the split so far.
struct PrepareProgress {
  std::string stage;  // "sample", "tokenizer" or a split
  std::int64_t documents = 0;
  std::int64_t bytes = 0;
};

struct PreparedSplit {
  std::string name;
  std::filesystem::path path;
  std::int64_t documents = 0;
  ReadCounts read = {};       // what was skipped and why
  std::int64_t examples = 0;  // of documents with summaries; 0 of a plain corpus
  std::int64_t summary_tokens = 0;
  SummaryCounts summaries = {};  // of format booksum; `read` is then also in here
  std::int64_t bytes = 0;
  std::int64_t words = 0;
  std::int64_t tokens = 0;    // of text, without the two end_of_text around each document
  double seconds = 0;         // from first to last document, by the clock
  double encode_seconds = 0;  // of processor time inside encode(), summed over threads

  double bytes_per_token() const { return tokens ? double(bytes) / double(tokens) : 0; }
  double encode_rate() const {
    return encode_seconds > 0 ? double(bytes) / encode_seconds : 0;
  }  // bytes/s/core
};

struct PrepareReport {
  std::vector<PreparedSplit> splits;
  std::filesystem::path missing;  // lists the files that were not there; empty: all were
  std::filesystem::path tokenizer;
  std::string tokenizer_hash;
  int vocabulary = 0;
  int threads = 0;
  double tokenizer_seconds = 0;
};

// The stores and the tokenizer are the same bytes whatever the number of threads. Memory holds a
// few documents per thread, whatever the size of the corpus. Format booksum makes the stores of
// data/example_store.h; a split that nothing is left of gets none, and that no split is left is an
// error. `progress` is called from this thread,
// about once a document.
PrepareReport prepare(const PrepareOptions& options,
                      const std::function<void(const PrepareProgress&)>& progress = {});

}  // namespace infini
