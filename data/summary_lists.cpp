#include "data/summary_lists.h"

#include <algorithm>

#include "data/line_reader.h"
#include "data/summary_files.h"
#include "data/summary_json.h"
#include "tensor/error.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

class ListReader final : public SummaryFilesReader {
 public:
  using SummaryFilesReader::SummaryFilesReader;

 protected:
  bool read_file(const SummaryFile& file, Reading& reading) const override {
    std::optional<LineReader> lines;
    const auto next = [&](std::string& line) {
      try {
        if (!lines) lines.emplace(file.path);
        return lines->next(line);
      } catch (const DataError& error) {
        reading.damaged_file(error.what());
        return false;
      }
    };
    for (std::string line; next(line);) {
      if (line.find_first_not_of(" \t\r") == line.npos) continue;
      const std::string place = text(file.path.string(), ":", lines->number());
      SummarizedDocument document;
      try {
        check<DataError>(!lines->too_long(),
                         "expected one JSON object a line, got a line of more than ",
                         LineReader::kLongest >> 20, " MiB");
        document = parse_summarized(line, file.level);
      } catch (const DataError& error) {
        reading.broken_line(text(place, ": ", error.what()));
        continue;
      }
      reading.counts.listed[static_cast<std::size_t>(file.level)] +=
          static_cast<std::int64_t>(document.summaries.size());
      if (document.document.name.empty())
        document.document.name = text(file.path.filename().string(), ":", lines->number());
      if (!reading.give(std::move(document), place)) return false;
    }
    return true;
  }
};

bool is_json_lines(const fs::path& file) {
  const fs::path ending = decompressed_name(file).extension();
  return ending == ".jsonl" || ending == ".json";
}

}  // namespace

std::unique_ptr<SummaryReader> open_summary_lists(const fs::path& path, const SummaryRules& rules) {
  std::vector<SummaryFile> files;
  if (fs::is_regular_file(path)) {
    if (is_json_lines(path) && rules.wants(SummaryLevel::kBook))
      files.push_back({path, SummaryLevel::kBook, split_named(path).value_or("train")});
  } else {
    for (const SummaryLevel level : {SummaryLevel::kBook, SummaryLevel::kChapter})
      if (rules.wants(level))
        add_split_files(path / (std::string(name_of(level)) + "s"), level, is_json_lines, files);
  }
  if (files.empty()) return nullptr;
  return std::make_unique<ListReader>(std::move(files), rules);
}

}  // namespace infini
