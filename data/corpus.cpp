#include "data/corpus.h"

#include <algorithm>
#include <optional>

#include "data/json_document.h"
#include "data/line_reader.h"
#include "data/units.h"
#include "tensor/error.h"

namespace infini {
namespace {

bool is_jsonl(const std::filesystem::path& path) {
  const auto ending = decompressed_name(path).extension();
  return ending == ".jsonl" || ending == ".json";
}

bool is_text(const std::filesystem::path& path) {
  return decompressed_name(path).extension() == ".txt";
}

bool belongs(const std::filesystem::path& path, CorpusFormat format) {
  return format == CorpusFormat::kJsonl ? is_jsonl(path) : is_text(path);
}

// All regular files below `root`, links followed, sorted by name.
std::vector<std::filesystem::path> files_below(const std::filesystem::path& root) {
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_regular_file(root)) return {root};
  check<ConfigError>(std::filesystem::is_directory(root), root.string(),
                     ": is neither a file nor a folder");
  std::error_code fault;
  std::filesystem::recursive_directory_iterator entry(
      root, std::filesystem::directory_options::follow_directory_symlink, fault);
  for (; !fault && entry != std::filesystem::recursive_directory_iterator();
       entry.increment(fault)) {
    std::error_code nowhere;  // a link to what is not there
    if (entry->is_regular_file(nowhere)) files.push_back(entry->path());
  }
  check<DeviceError>(!fault, root.string(), ": a folder in it cannot be read: ", fault.message());
  std::sort(files.begin(), files.end());
  return files;
}

std::string split_of(const std::filesystem::path& relative) {
  const std::string folder = relative.begin()->string();
  if (!relative.has_parent_path()) return "train";
  if (folder == "validation" || folder == "valid" || folder == "dev") return "validation";
  return folder == "test" ? "test" : "train";
}

// Whether an unquoted comma-separated row is id, title, year, link with numbers where they belong.
bool is_book_row(const std::vector<std::string>& columns) {
  const auto digits = [](const std::string& s) {
    return !s.empty() && s.find_first_not_of("0123456789") == s.npos;
  };
  return columns.size() == 4 && digits(columns[0]) && digits(columns[2]);
}

std::vector<std::string> split_commas(std::string_view line) {
  std::vector<std::string> columns;
  while (true) {
    const std::size_t comma = line.find(',');
    columns.emplace_back(line.substr(0, comma));
    if (comma == line.npos) return columns;
    line.remove_prefix(comma + 1);
  }
}

// Length of the white space of Python's str.split() at the start of `text`, 0 when there is none.
int space_length(std::string_view text) {
  const unsigned char first = static_cast<unsigned char>(text[0]);
  if (first < 0x80)
    return first == ' ' || (first >= 9 && first <= 13) || (first >= 28 && first <= 31);
  if (first == 0xC2) return text.starts_with("\xC2\x85") || text.starts_with("\xC2\xA0") ? 2 : 0;
  if (first < 0xE1 || first > 0xE3) return 0;
  const std::string_view c = text.substr(0, 3);
  if (c >= "\xE2\x80\x80" && c <= "\xE2\x80\x8A" && c.size() == 3) return 3;  // U+2000 to U+200A
  for (const char* space : {"\xE1\x9A\x80", "\xE2\x80\xA8", "\xE2\x80\xA9", "\xE2\x80\xAF",
                            "\xE2\x81\x9F", "\xE3\x80\x80"})
    if (c == space) return 3;
  return 0;
}

CorpusFormat detect(const std::filesystem::path& root,
                    const std::vector<std::filesystem::path>& files) {
  if (std::filesystem::exists(root / "metadata.csv")) return CorpusFormat::kPg19;
  const bool texts = std::any_of(files.begin(), files.end(), is_text);
  check<ConfigError>(!texts || std::none_of(files.begin(), files.end(), is_jsonl), root.string(),
                     ": holds .txt and .jsonl files; expected a format that says which ones to "
                     "read, text or jsonl");
  return texts ? CorpusFormat::kText : CorpusFormat::kJsonl;
}

}  // namespace

void CorpusRules::validate() const {
  check<ConfigError>(broken != OnFault::kKeep,
                     "broken must be refuse or skip: what is no document cannot be kept");
}

std::pair<std::string, std::string> parse_where(const std::string& rule) {
  const std::size_t equal = rule.find('=');
  check<ConfigError>(equal != rule.npos && equal > 0, "where: expected key=value, got '", rule,
                     "'");
  return {rule.substr(0, equal), rule.substr(equal + 1)};
}

std::string ReadCounts::summary() const {
  std::string out;
  const auto add = [&](std::int64_t count, const std::string& what) {
    if (count > 0) out += text(out.empty() ? "" : ", ", count, " ", what);
  };
  add(empty, "without text");
  add(elsewhere, text("with another `meta` (the first: ", first_elsewhere, ")"));
  add(broken_lines, broken_lines == 1 ? "broken line" : "broken lines");
  add(cut_files, cut_files == 1 ? "damaged file" : "damaged files");
  add(invalid_utf8, invalid_skipped ? "not UTF-8, skipped" : "not UTF-8, kept");
  if (!first_fault.empty()) out += text("; the first: ", first_fault);
  return out;
}

std::int64_t Document::words() const {
  std::int64_t words = 0;
  bool inside = false;
  for (std::string_view rest = text; !rest.empty();) {
    const int space = space_length(rest);
    words += inside && space > 0;
    inside = space == 0;
    rest.remove_prefix(static_cast<std::size_t>(std::max(space, 1)));
  }
  return words + inside;
}

Corpus::Corpus(const std::filesystem::path& path, CorpusFormat format, CorpusRules rules)
    : root_(path), format_(format), rules_(std::move(rules)) {
  rules_.validate();
  check<ConfigError>(format_ != CorpusFormat::kBooksum, path.string(),
                     ": format booksum has documents with summaries, not documents alone");
  check<DataError>(std::filesystem::exists(path), path.string(),
                   ": no such corpus; expected a folder or a file");
  const std::vector<std::filesystem::path> files = files_below(path);
  if (format_ == CorpusFormat::kAuto) format_ = detect(path, files);
  check<ConfigError>(rules_.where.empty() || format_ == CorpusFormat::kJsonl, path.string(),
                     ": where looks at the `meta` of JSON lines; there is none in .txt files");
  const bool single = std::filesystem::is_regular_file(path);
  for (const auto& file : files) {
    if (!belongs(file, format_) && !(single && format == format_)) continue;
    files_[single ? "train" : split_of(file.lexically_relative(path))].push_back(file);
  }
  check<DataError>(!files_.empty(), path.string(),
                   ": holds no documents; expected .txt or .jsonl files, plain, .gz or .zst");
  const auto metadata = path / "metadata.csv";
  if (format_ == CorpusFormat::kPg19 && std::filesystem::exists(metadata)) read_metadata(metadata);
}

void Corpus::read_metadata(const std::filesystem::path& path) {
  LineReader lines(path);
  for (std::string line; lines.next(line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) continue;
    const std::vector<std::string> columns = split_commas(line);
    check<DataError>(is_book_row(columns), path.string(), ":", lines.number(),
                     ": expected `id,title,year,link` without quotes, got '", line.substr(0, 100),
                     "'");
    titles_[columns[0]] = columns[1];
  }
}

std::vector<std::string> Corpus::splits() const {
  std::vector<std::string> names;
  for (const char* name : {"train", "validation", "test"})
    if (files_.contains(name)) names.push_back(name);
  return names;
}

const std::vector<std::filesystem::path>& Corpus::files(const std::string& split) const {
  static const std::vector<std::filesystem::path> none;
  const auto found = files_.find(split);
  return found == files_.end() ? none : found->second;
}

std::string Corpus::name_of(const std::filesystem::path& file) const {
  return file == root_ ? file.filename().string() : file.lexically_relative(root_).string();
}

void Corpus::fault(const std::string& message, std::int64_t& count, ReadCounts& counts) const {
  check<DataError>(rules_.broken == OnFault::kSkip, message);
  if (counts.first_fault.empty()) counts.first_fault = message;
  ++count;
}

bool Corpus::is_elsewhere(const std::map<std::string, std::string>& meta,
                          ReadCounts& counts) const {
  for (const auto& [key, value] : rules_.where) {
    const auto found = meta.find(key);
    if (found != meta.end() && found->second == value) continue;
    if (counts.elsewhere++ == 0)
      counts.first_elsewhere =
          found == meta.end() ? text("no ", key) : text(key, "=", found->second.substr(0, 100));
    return true;
  }
  return false;
}

bool Corpus::read_text(const std::filesystem::path& file, ReadCounts& counts,
                       const Use& give) const {
  Document document;
  try {
    document.text = read_decompressed(file);
  } catch (const DataError& error) {
    fault(error.what(), counts.cut_files, counts);
    return true;
  }
  if (format_ == CorpusFormat::kPg19) {
    document.name = decompressed_name(file).stem().string();
    const auto title = titles_.find(document.name);
    if (title != titles_.end()) document.title = title->second;
  } else {
    document.name = name_of(file);
  }
  if (!is_utf8(document.text)) {
    check<DataError>(rules_.invalid_utf8 != OnFault::kRefuse, file.string(),
                     ": expected a text in UTF-8, got other bytes");
    ++counts.invalid_utf8;
    if (rules_.invalid_utf8 == OnFault::kSkip) return true;
  }
  return give(std::move(document));
}

bool Corpus::read_jsonl(const std::filesystem::path& file, ReadCounts& counts,
                        const Use& give) const {
  std::optional<LineReader> lines;
  const auto next = [&](std::string& line) {
    try {
      if (!lines) lines.emplace(file);
      return lines->next(line);
    } catch (const DataError& error) {
      fault(error.what(), counts.cut_files, counts);
      return false;
    }
  };
  for (std::string line; next(line);) {
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    const std::string place = text(file.string(), ":", lines->number(), ": ");
    JsonDocument object;
    try {
      check<DataError>(!lines->too_long(),
                       "expected one JSON object a line, got a line of more than ",
                       LineReader::kLongest >> 20, " MiB");
      object = parse_json_document(line);
    } catch (const DataError& error) {
      fault(place + error.what(), counts.broken_lines, counts);
      continue;
    }
    if (is_elsewhere(object.meta, counts)) continue;
    if (!is_utf8(object.text)) {
      check<DataError>(rules_.invalid_utf8 != OnFault::kRefuse, place,
                       "expected a text in UTF-8, got other bytes");
      ++counts.invalid_utf8;
      if (rules_.invalid_utf8 == OnFault::kSkip) continue;
    }
    std::string name = object.name();
    if (name.empty()) name = text(name_of(file), ":", lines->number());
    if (!give({.name = std::move(name), .title = object.title(), .text = std::move(object.text)}))
      return false;
  }
  return true;
}

ReadCounts Corpus::read(const std::string& split, const Use& use) const {
  ReadCounts counts;
  counts.invalid_skipped = rules_.invalid_utf8 == OnFault::kSkip;
  const auto give = [&](Document&& document) {
    if (!document.text.empty()) return use(std::move(document));
    ++counts.empty;
    return true;
  };
  for (const auto& file : files(split))
    if (!(format_ == CorpusFormat::kJsonl ? read_jsonl(file, counts, give)
                                          : read_text(file, counts, give)))
      break;
  return counts;
}

}  // namespace infini
