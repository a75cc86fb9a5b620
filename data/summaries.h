// Documents with summaries, as BookSum and its copies have them.
//
// Forms, told apart by what is there; every file may also end in .gz or .zst:
//   tree    salesforce/booksum: alignments/{book,chapter}-level-summary-alignments/*.jsonl, whose
//           paths name texts (all_chapterized_books/) and summaries (finished_summaries/, JSON)
//   lists   books/ or chapters/ {train,validation,test}.jsonl: `text` and a list `summary`
//   tables  {train,validation,test}.csv with a header: `chapter` and `summary_text` and others
// A split may also be called val, valid or dev.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/corpus.h"

namespace infini {

enum class SummaryLevel { kBook, kChapter };
constexpr std::array<std::pair<std::string_view, SummaryLevel>, 2> enum_names(SummaryLevel) {
  return {{{"book", SummaryLevel::kBook}, {"chapter", SummaryLevel::kChapter}}};
}
inline constexpr std::size_t kSummaryLevels = 2;
std::string_view name_of(SummaryLevel level);

enum class WantedLevels { kBoth, kBook, kChapter };
constexpr std::array<std::pair<std::string_view, WantedLevels>, 3> enum_names(WantedLevels) {
  return {{{"both", WantedLevels::kBoth},
           {"book", WantedLevels::kBook},
           {"chapter", WantedLevels::kChapter}}};
}

struct Summary {
  std::string source;  // who wrote it, "sparknotes"
  std::string text;
};

struct SummarizedDocument {
  Document document;
  SummaryLevel level = SummaryLevel::kBook;
  std::vector<Summary> summaries;  // each of this document is an example of its own
};

// What SummaryReader::read() came across.
struct SummaryCounts {
  std::array<std::int64_t, kSummaryLevels> listed = {};  // pairs of document and summary, by level
  std::array<std::int64_t, kSummaryLevels> given = {};   // of these, those that came out
  std::vector<std::string> missing;                      // files, each once, in order
  std::int64_t without_file = 0;                         // pairs lost to them
  ReadCounts read;

  std::int64_t listed_pairs() const { return listed[0] + listed[1]; }
  std::string summary() const;  // what was lost and why, for a line of a report; or empty
};

struct SummaryRules {
  OnFault broken = OnFault::kRefuse;
  OnFault invalid_utf8 = OnFault::kKeep;
  WantedLevels levels = WantedLevels::kBoth;

  bool wants(SummaryLevel level) const {
    return levels == WantedLevels::kBoth ||
           (levels == WantedLevels::kBook) == (level == SummaryLevel::kBook);
  }
};

// Documents of one form, in the order of its files.
class SummaryReader {
 public:
  using Use = std::function<bool(SummarizedDocument&&)>;

  explicit SummaryReader(SummaryRules rules) : rules_(rules) {}
  virtual ~SummaryReader() = default;

  virtual std::vector<std::string> splits() const = 0;  // of train, validation, test
  // About the bytes of the split's documents; compressed ones count as they are.
  virtual std::int64_t bytes_on_disk(const std::string& split) const = 0;
  // Calls use(document) for each document until it returns false. One document is in memory at a
  // time. The same text may come again, with other summaries. Throws DataError naming file and line
  // for what the rules refuse; files that are missing are counted.
  SummaryCounts read(const std::string& split, const Use& use) const;

 protected:
  // Of one call of read(): counts, and what becomes of what is not as it should be.
  class Reading {
   public:
    Reading(const SummaryRules& rules, const Use& use) : rules_(rules), use_(use) {}

    // Hands a document on, unless its text or all its summaries are empty or refused. False: the
    // caller wants no more.
    bool give(SummarizedDocument&& document, const std::string& place);
    void broken_line(const std::string& message) { fault(message, counts.read.broken_lines); }
    void damaged_file(const std::string& message) { fault(message, counts.read.cut_files); }

    SummaryCounts counts;

   private:
    void fault(const std::string& message, std::int64_t& count);
    bool takes(const std::string& text, const std::string& place);

    const SummaryRules& rules_;
    const Use& use_;
  };
  virtual void read_split(const std::string& split, Reading& reading) const = 0;

  SummaryRules rules_;
};

// Detects the form and lists its files. Throws DataError, saying what was looked for, where there
// is none.
std::unique_ptr<SummaryReader> open_summaries(const std::filesystem::path& path,
                                              const SummaryRules& rules);

// The split that a file is named for: "dev.csv.zst" is validation. None for other names.
std::optional<std::string> split_named(const std::filesystem::path& file);

}  // namespace infini
