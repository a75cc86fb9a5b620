#include "data/summary_tables.h"

#include <algorithm>
#include <initializer_list>

#include "data/csv_reader.h"
#include "data/summary_files.h"
#include "data/summary_json.h"
#include "tensor/error.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

// Where the columns that are read stand in a record.
struct Columns {
  std::size_t count = 0;
  std::optional<std::size_t> text, summary, source, name, title;
  SummaryLevel level = SummaryLevel::kChapter;

  Columns(const std::vector<std::string>& header, const std::string& place) : count(header.size()) {
    const auto find = [&](std::initializer_list<const char*> names) {
      std::optional<std::size_t> found;
      for (const char* wanted : names)
        if (const auto at = std::ranges::find(header, wanted); !found && at != header.end())
          found = static_cast<std::size_t>(at - header.begin());
      return found;
    };
    text = find({"chapter", "book"});
    summary = find({"summary_text", "summary"});
    source = find({"source"});
    name = find({"chapter_path", "bid"});
    title = find({"book_id", "title"});
    check<DataError>(text && summary, place,
                     ": expected a header with `chapter` or `book` and with `summary_text` or "
                     "`summary`, got ",
                     count, " columns, the first ", header.empty() ? "" : header[0].substr(0, 100));
    if (header[*text] == "book") level = SummaryLevel::kBook;
  }
};

class TableReader final : public SummaryFilesReader {
 public:
  using SummaryFilesReader::SummaryFilesReader;

 protected:
  bool read_file(const SummaryFile& file, Reading& reading) const override {
    std::optional<CsvReader> records;
    std::vector<std::string> fields;
    const auto next = [&] {
      try {
        if (!records) records.emplace(file.path);
        return records->next(fields);
      } catch (const DataError& error) {
        reading.damaged_file(error.what());
        return false;
      }
    };
    if (!next()) return true;
    const Columns columns(fields, text(file.path.string(), ":", records->line()));
    if (!rules_.wants(columns.level)) return true;
    while (next()) {
      const std::string place = text(file.path.string(), ":", records->line());
      SummarizedDocument document;
      try {
        document = document_of(fields, columns);
      } catch (const DataError& error) {
        reading.broken_line(text(place, ": ", error.what()));
        continue;
      }
      ++reading.counts.listed[static_cast<std::size_t>(columns.level)];
      if (document.document.name.empty())
        document.document.name = text(file.path.filename().string(), ":", records->line());
      if (!reading.give(std::move(document), place)) return false;
    }
    return true;
  }

 private:
  static SummarizedDocument document_of(std::vector<std::string>& fields, const Columns& columns) {
    check<DataError>(fields.size() == columns.count, "expected ", columns.count,
                     " fields, as the header has, got ", fields.size());
    const auto field = [&](const std::optional<std::size_t>& column) {
      return column ? std::move(fields[*column]) : std::string();
    };
    SummarizedDocument document;
    document.level = columns.level;
    document.document = {
        .name = field(columns.name), .title = field(columns.title), .text = field(columns.text)};
    Summary summary{.source = field(columns.source), .text = field(columns.summary)};
    if (summary.text.starts_with('{')) summary.text = parse_summary(summary.text);
    document.summaries.push_back(std::move(summary));
    return document;
  }
};

bool is_table(const fs::path& file) { return decompressed_name(file).extension() == ".csv"; }

}  // namespace

std::unique_ptr<SummaryReader> open_summary_tables(const fs::path& path,
                                                   const SummaryRules& rules) {
  std::vector<SummaryFile> files;
  if (!fs::is_regular_file(path))
    add_split_files(path, SummaryLevel::kChapter, is_table, files);
  else if (is_table(path))
    files.push_back({path, SummaryLevel::kChapter, split_named(path).value_or("train")});
  if (files.empty()) return nullptr;
  return std::make_unique<TableReader>(std::move(files), rules);
}

}  // namespace infini
