// Documents of a corpus on disk, one after the other.
//
// Layouts, told apart by what is there; every file may also end in .gz or .zst:
//   pg19    train|validation|test/<id>.txt, beside it metadata.csv without a header: id, title,
//           year, link
//   text    a folder of .txt files at any depth, or one .txt file
//   jsonl   .jsonl (also .json), one object a line with a `text` field and a `meta` that may be
//           missing, as proof-pile and RedPajama have it; a folder of them or one file
// A first-level folder train, validation or test (or valid, dev) names the split; everything else
// is train. Files come in the order of their names, so a corpus gives the same documents in the
// same order on every machine.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace infini {

enum class CorpusFormat { kAuto, kPg19, kText, kJsonl, kBooksum };
constexpr std::array<std::pair<std::string_view, CorpusFormat>, 5> enum_names(CorpusFormat) {
  return {{{"auto", CorpusFormat::kAuto},
           {"pg19", CorpusFormat::kPg19},
           {"text", CorpusFormat::kText},
           {"jsonl", CorpusFormat::kJsonl},
           {"booksum", CorpusFormat::kBooksum}}};  // read by data/summaries.h, not by Corpus
}

// What becomes of something that is not as it should be.
enum class OnFault { kRefuse, kSkip, kKeep };
constexpr std::array<std::pair<std::string_view, OnFault>, 3> enum_names(OnFault) {
  return {{{"refuse", OnFault::kRefuse}, {"skip", OnFault::kSkip}, {"keep", OnFault::kKeep}}};
}

// Which documents of a corpus are wanted.
struct CorpusRules {
  OnFault broken = OnFault::kRefuse;      // lines that are no document, rests of damaged files
  OnFault invalid_utf8 = OnFault::kKeep;  // texts that are not UTF-8; kept as their bytes are
  std::map<std::string, std::string> where = {};  // jsonl: what `meta` must say under these keys

  void validate() const;
};

// "key=value" as an entry of CorpusRules::where. Throws ConfigError for anything else.
std::pair<std::string, std::string> parse_where(const std::string& rule);

// What Corpus::read() came across besides the documents that it gave.
struct ReadCounts {
  std::int64_t empty = 0;         // documents without text, skipped
  std::int64_t elsewhere = 0;     // skipped because of `where`
  std::int64_t broken_lines = 0;  // skipped
  std::int64_t cut_files = 0;     // damaged or ending too early; what came before was given
  std::int64_t invalid_utf8 = 0;  // skipped or given, as the rules say
  bool invalid_skipped = false;
  std::string first_fault;      // the message of the first broken line or cut file
  std::string first_elsewhere;  // what the first one says instead, "config=wiki"

  std::int64_t skipped() const {
    return empty + elsewhere + broken_lines + (invalid_skipped ? invalid_utf8 : 0);
  }
  std::string summary() const;  // "3 without text, 1 broken line"; empty when there is nothing
};

struct Document {
  // pg19: the id; text: the path within the corpus; jsonl: `meta`'s arxiv_id, file or url, and
  // "<path>:<line>" without any of them
  std::string name;
  std::string title;  // pg19: from metadata.csv; jsonl: from `meta`; empty when there is none
  std::string text;   // bytes as they are, valid UTF-8 or not

  std::int64_t bytes() const { return static_cast<std::int64_t>(text.size()); }
  // Runs of characters that are not white space, as Python's str.split() counts them: the words of
  // PG19's word-level perplexity. A malformed byte is no white space.
  std::int64_t words() const;
};

class Corpus {
 public:
  // Lists the files, reads none of them. A file that is named by itself with its format may have
  // any name. Throws DataError when there is nothing to read, or for a malformed metadata.csv, and
  // ConfigError for rules that do not fit the format.
  explicit Corpus(const std::filesystem::path& path, CorpusFormat format = CorpusFormat::kAuto,
                  CorpusRules rules = {});

  CorpusFormat format() const { return format_; }
  std::vector<std::string> splits() const;  // those that have files: train, validation, test
  const std::vector<std::filesystem::path>& files(const std::string& split) const;

  // Calls use(document) for each document of the split until it returns false. One document is in
  // memory at a time. Throws DataError naming file and line for what the rules refuse.
  ReadCounts read(const std::string& split, const std::function<bool(Document&&)>& use) const;

 private:
  using Use = std::function<bool(Document&&)>;
  void read_metadata(const std::filesystem::path& path);
  bool read_text(const std::filesystem::path& file, ReadCounts& counts, const Use& give) const;
  bool read_jsonl(const std::filesystem::path& file, ReadCounts& counts, const Use& give) const;
  bool is_elsewhere(const std::map<std::string, std::string>& meta, ReadCounts& counts) const;
  void fault(const std::string& message, std::int64_t& count, ReadCounts& counts) const;
  std::string name_of(const std::filesystem::path& file) const;  // within the corpus

  std::filesystem::path root_;
  CorpusFormat format_;
  CorpusRules rules_;
  std::map<std::string, std::vector<std::filesystem::path>> files_;  // by split
  std::map<std::string, std::string> titles_;                        // pg19: by id
};

}  // namespace infini
