#include "data/corpus.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/durable_file.h"
#include "data/line_reader.h"
#include "data/units.h"
#include "tensor/error.h"

namespace infini {
namespace {

bool is_jsonl(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  for (const char* ending : {".jsonl", ".jsonl.gz", ".jsonl.zst", ".json"})
    if (name.ends_with(ending)) return true;
  return false;
}

bool is_text(const std::filesystem::path& path) { return path.extension() == ".txt"; }

bool belongs(const std::filesystem::path& path, CorpusFormat format) {
  return format == CorpusFormat::kJsonl ? is_jsonl(path) : is_text(path);
}

// All regular files below `root`, links followed, sorted by name.
std::vector<std::filesystem::path> files_below(const std::filesystem::path& root) {
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_regular_file(root)) return {root};
  const auto options = std::filesystem::directory_options::follow_directory_symlink;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root, options))
    if (entry.is_regular_file()) files.push_back(entry.path());
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

// JSON must be UTF-8, but a text that is not shall be kept: its malformed bytes travel through the
// parser as U+10FF00 plus the byte, characters for private use that nobody else gives a meaning.
std::string hide_malformed(std::string_view line) {
  std::string out;
  while (!line.empty()) {
    const auto length = static_cast<std::size_t>(utf8_length(line));
    if (length > 0) {
      out += line.substr(0, length);
    } else {
      const auto byte = static_cast<unsigned char>(line[0]);
      out += {'\xF4', '\x8F', static_cast<char>(0xBC | byte >> 6),
              static_cast<char>(0x80 | (byte & 0x3F))};
    }
    line.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return out;
}

std::string restore_malformed(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const bool hidden = text.size() >= 4 && text.starts_with("\xF4\x8F") &&
                        (static_cast<unsigned char>(text[2]) & 0xFC) == 0xBC;
    out += hidden ? static_cast<char>((text[2] & 3) << 6 | (text[3] & 0x3F)) : text[0];
    text.remove_prefix(hidden ? 4 : 1);
  }
  return out;
}

CorpusFormat detect(const std::filesystem::path& root,
                    const std::vector<std::filesystem::path>& files) {
  if (std::filesystem::exists(root / "metadata.csv")) return CorpusFormat::kPg19;
  if (std::any_of(files.begin(), files.end(), is_text)) return CorpusFormat::kText;
  return CorpusFormat::kJsonl;
}

}  // namespace

std::int64_t Document::words() const {
  std::int64_t words = 0;
  bool inside = false;
  for (const char c : text) {
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    words += inside && space;
    inside = !space;
  }
  return words + inside;
}

Corpus::Corpus(const std::filesystem::path& path, CorpusFormat format)
    : root_(path), format_(format) {
  check<DataError>(std::filesystem::exists(path), path.string(),
                   ": no such corpus; expected a folder or a file");
  const std::vector<std::filesystem::path> files = files_below(path);
  if (format_ == CorpusFormat::kAuto) format_ = detect(path, files);
  const bool single = std::filesystem::is_regular_file(path);
  for (const auto& file : files) {
    if (!belongs(file, format_)) continue;
    files_[single ? "train" : split_of(file.lexically_relative(path))].push_back(file);
  }
  check<DataError>(!files_.empty(), path.string(),
                   ": holds no documents; expected .txt, .jsonl, .jsonl.gz or .jsonl.zst files");
  const auto metadata = path / "metadata.csv";
  if (format_ == CorpusFormat::kPg19 && std::filesystem::exists(metadata)) read_metadata(metadata);
}

void Corpus::read_metadata(const std::filesystem::path& path) {
  read_lines(path, [&](std::string& line, std::int64_t number) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) return true;
    const std::vector<std::string> columns = split_commas(line);
    check<DataError>(is_book_row(columns), path.string(), ":", number,
                     ": expected `id,title,year,link` without quotes, got '", line.substr(0, 100),
                     "'");
    titles_[columns[0]] = columns[1];
    return true;
  });
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

std::int64_t Corpus::read(const std::string& split,
                          const std::function<bool(Document&&)>& use) const {
  std::int64_t skipped = 0;
  bool wanted = true;
  const auto give = [&](Document&& document) {
    if (document.text.empty())
      ++skipped;
    else
      wanted = use(std::move(document));
    return wanted;
  };
  for (const auto& file : files(split)) {
    if (!wanted) break;
    const std::string name =
        file == root_ ? file.filename().string() : file.lexically_relative(root_).string();
    if (format_ != CorpusFormat::kJsonl) {
      const std::string id = file.stem().string();
      const auto title = titles_.find(id);
      give({.name = format_ == CorpusFormat::kPg19 ? id : name,
            .title = title == titles_.end() ? std::string() : title->second,
            .text = read_file(file)});
      continue;
    }
    read_lines(file, [&](std::string& line, std::int64_t number) {
      if (line.find_first_not_of(" \t\r") == line.npos) return true;
      auto object = nlohmann::json::parse(line, nullptr, false);
      const bool malformed = object.is_discarded();
      if (malformed) object = nlohmann::json::parse(hide_malformed(line), nullptr, false);
      check<DataError>(object.is_object() && object.contains("text") && object["text"].is_string(),
                       file.string(), ":", number,
                       ": expected a JSON object with a string `text`, got '", line.substr(0, 100),
                       "'");
      std::string& content = object["text"].get_ref<std::string&>();
      if (malformed) content = restore_malformed(content);
      return give({.name = text(name, ":", number), .title = {}, .text = std::move(content)});
    });
  }
  return skipped;
}

}  // namespace infini
