// Documents of a corpus on disk, one after the other.
//
// Layouts, told apart by what is there:
//   pg19    train|validation|test/<id>.txt, beside it metadata.csv without a header: id, title,
//   year, link text    a folder of .txt files at any depth, or one .txt file jsonl   .jsonl,
//   .jsonl.gz, .jsonl.zst (also .json): one object a line with a `text` field; a folder of them or
//   one file
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

enum class CorpusFormat { kAuto, kPg19, kText, kJsonl };
constexpr std::array<std::pair<std::string_view, CorpusFormat>, 4> enum_names(CorpusFormat) {
  return {{{"auto", CorpusFormat::kAuto},
           {"pg19", CorpusFormat::kPg19},
           {"text", CorpusFormat::kText},
           {"jsonl", CorpusFormat::kJsonl}}};
}

struct Document {
  std::string name;   // pg19: the id; text: the path within the corpus; jsonl: "<path>:<line>"
  std::string title;  // pg19: from metadata.csv, empty when the book has no row there
  std::string text;   // bytes as they are, valid UTF-8 or not

  std::int64_t bytes() const { return static_cast<std::int64_t>(text.size()); }
  std::int64_t words() const;  // runs of bytes without ASCII white space
};

class Corpus {
 public:
  // Lists the files, reads none of them. Throws DataError when there is nothing to read, or for a
  // malformed metadata.csv.
  explicit Corpus(const std::filesystem::path& path, CorpusFormat format = CorpusFormat::kAuto);

  CorpusFormat format() const { return format_; }
  std::vector<std::string> splits() const;  // those that have files: train, validation, test
  const std::vector<std::filesystem::path>& files(const std::string& split) const;

  // Calls use(document) for each document of the split until it returns false. One document is in
  // memory at a time. Documents without text are skipped; returns how many. Throws DataError naming
  // file and line for malformed JSON.
  std::int64_t read(const std::string& split, const std::function<bool(Document&&)>& use) const;

 private:
  void read_metadata(const std::filesystem::path& path);

  std::filesystem::path root_;
  CorpusFormat format_;
  std::map<std::string, std::vector<std::filesystem::path>> files_;  // by split
  std::map<std::string, std::string> titles_;                        // pg19: by id
};

}  // namespace infini
