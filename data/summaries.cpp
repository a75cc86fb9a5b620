#include "data/summaries.h"

#include <algorithm>

#include "data/line_reader.h"
#include "data/summary_lists.h"
#include "data/summary_tables.h"
#include "data/summary_tree.h"
#include "data/units.h"
#include "tensor/error.h"

namespace infini {

namespace fs = std::filesystem;

std::string_view name_of(SummaryLevel level) {
  return enum_names(level)[static_cast<std::size_t>(level)].first;
}

std::string SummaryCounts::summary() const {
  std::string out;
  if (!missing.empty())
    out = text(missing.size(), missing.size() == 1 ? " missing file" : " missing files", ", ",
               without_file, without_file == 1 ? " example" : " examples", " without them");
  const std::string others = read.summary();
  return out.empty() || others.empty() ? out + others : out + ", " + others;
}

SummaryCounts SummaryReader::read(const std::string& split, const Use& use) const {
  Reading reading(rules_, use);
  reading.counts.read.invalid_skipped = rules_.invalid_utf8 == OnFault::kSkip;
  read_split(split, reading);
  return std::move(reading.counts);
}

void SummaryReader::Reading::fault(const std::string& message, std::int64_t& count) {
  check<DataError>(rules_.broken == OnFault::kSkip, message);
  if (counts.read.first_fault.empty()) counts.read.first_fault = message;
  ++count;
}

bool SummaryReader::Reading::takes(const std::string& text, const std::string& place) {
  if (text.find_first_not_of(" \t\r\n") == text.npos) {
    ++counts.read.empty;
    return false;
  }
  if (is_utf8(text)) return true;
  check<DataError>(rules_.invalid_utf8 != OnFault::kRefuse, place,
                   ": expected a text in UTF-8, got other bytes");
  ++counts.read.invalid_utf8;
  return rules_.invalid_utf8 == OnFault::kKeep;
}

bool SummaryReader::Reading::give(SummarizedDocument&& document, const std::string& place) {
  if (!takes(document.document.text, place)) return true;
  std::erase_if(document.summaries,
                [&](const Summary& summary) { return !takes(summary.text, place); });
  if (document.summaries.empty()) return true;
  counts.given[static_cast<std::size_t>(document.level)] +=
      static_cast<std::int64_t>(document.summaries.size());
  return use_(std::move(document));
}

std::optional<std::string> split_named(const fs::path& file) {
  const std::string stem = decompressed_name(file).stem().string();
  if (stem == "train" || stem == "test") return stem;
  for (const char* name : {"validation", "valid", "val", "dev"})
    if (stem == name) return "validation";
  return std::nullopt;
}

std::unique_ptr<SummaryReader> open_summaries(const fs::path& path, const SummaryRules& rules) {
  check<ConfigError>(rules.broken != OnFault::kKeep,
                     "broken must be refuse or skip: what is no document cannot be kept");
  check<DataError>(fs::exists(path), path.string(),
                   ": no such corpus; expected a folder or a file");
  for (const auto open : {open_summary_tree, open_summary_lists, open_summary_tables})
    if (std::unique_ptr<SummaryReader> reader = open(path, rules)) return reader;
  throw DataError(
      text(path.string(), ": holds no ",
           rules.levels == WantedLevels::kBook      ? "book "
           : rules.levels == WantedLevels::kChapter ? "chapter "
                                                    : "",
           "summaries; looked for alignments/book-level-summary-alignments/*.jsonl and "
           "alignments/chapter-level-summary-alignments/*.jsonl, books/ and chapters/ "
           "{train,validation,test}.jsonl, and {train,validation,test}.csv, each plain, .gz or "
           ".zst"));
}

}  // namespace infini
