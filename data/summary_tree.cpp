#include "data/summary_tree.h"

#include <algorithm>
#include <map>
#include <set>

#include "data/line_reader.h"
#include "data/summary_json.h"
#include "tensor/error.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

struct AlignmentFile {
  fs::path path;
  SummaryLevel level;
  std::string split;
};

// A text and what is said about it.
struct AlignedDocument {
  std::string path, title;
  std::vector<Alignment> summaries;
};

std::string split_of_alignments(const fs::path& file) {
  const std::string stem = decompressed_name(file).stem().string();
  if (stem.find("_test") != stem.npos) return "test";
  return stem.find("_val") != stem.npos ? "validation" : "train";
}

// The file itself or a compressed one in its place; empty: there is none.
fs::path with_ending(const fs::path& file) {
  for (const char* ending : {"", ".gz", ".zst"}) {
    fs::path candidate = file;
    candidate += ending;
    if (fs::is_regular_file(candidate)) return candidate;
  }
  return {};
}

// The folder that a folder lies in, by its name: links are not followed.
fs::path folder_of(const fs::path& folder) {
  return (fs::absolute(folder) / "").lexically_normal().parent_path().parent_path();
}

fs::path summary_file(const fs::path& file) {
  const fs::path found = with_ending(file);
  if (!found.empty()) return found;
  fs::path other = file;
  return with_ending(other.replace_extension(file.extension() == ".json" ? ".txt" : ".json"));
}

class TreeReader final : public SummaryReader {
 public:
  TreeReader(fs::path root, std::vector<AlignmentFile> files, const SummaryRules& rules)
      : SummaryReader(rules), root_(std::move(root)), files_(std::move(files)) {}

  std::vector<std::string> splits() const override {
    std::vector<std::string> names;
    for (const char* name : {"train", "validation", "test"})
      if (std::ranges::any_of(files_, [&](const auto& file) { return file.split == name; }))
        names.push_back(name);
    return names;
  }

  std::int64_t bytes_on_disk(const std::string& split) const override {
    std::int64_t bytes = 0;
    const Use none;
    SummaryRules lenient = rules_;
    lenient.broken = OnFault::kSkip;  // what is broken is told when it is read
    Reading reading(lenient, none);
    for (const AlignmentFile& file : files_of(split))
      for (const AlignedDocument& document : documents_of(file, reading))
        if (const fs::path found = with_ending(root_ / document.path); !found.empty())
          bytes += static_cast<std::int64_t>(fs::file_size(found));
    return bytes;
  }

 protected:
  void read_split(const std::string& split, Reading& reading) const override {
    std::set<std::string> missing;
    const auto miss = [&](const std::string& path) {
      if (missing.insert(path).second) reading.counts.missing.push_back(path);
    };
    for (const AlignmentFile& file : files_of(split))
      for (const AlignedDocument& aligned : documents_of(file, reading)) {
        const fs::path found = with_ending(root_ / aligned.path);
        if (found.empty()) miss(aligned.path);
        SummarizedDocument document;
        document.level = file.level;
        for (const Alignment& alignment : aligned.summaries) {
          const fs::path summary = summary_file(root_ / alignment.summary);
          if (summary.empty()) miss(alignment.summary);
          if (summary.empty() || found.empty())
            ++reading.counts.without_file;
          else
            add_summary(document, alignment.source, summary, reading);
        }
        if (document.summaries.empty()) continue;
        document.document.name = aligned.path;
        document.document.title = aligned.title;
        try {
          document.document.text = read_decompressed(found);
        } catch (const DataError& error) {
          reading.damaged_file(error.what());
          continue;
        }
        if (!reading.give(std::move(document), found.string())) return;
      }
  }

 private:
  std::vector<AlignmentFile> files_of(const std::string& split) const {
    std::vector<AlignmentFile> files;
    std::ranges::copy_if(files_, std::back_inserter(files),
                         [&](const auto& file) { return file.split == split; });
    return files;
  }

  // What the lines of a file name, by document, in order of the first line of each.
  static std::vector<AlignedDocument> documents_of(const AlignmentFile& file, Reading& reading) {
    std::vector<AlignedDocument> documents;
    std::map<std::string, std::size_t> index;
    try {
      LineReader lines(file.path);
      for (std::string line; lines.next(line);) {
        if (line.find_first_not_of(" \t\r") == line.npos) continue;
        try {
          Alignment alignment = parse_alignment(line, file.level);
          const auto [place, fresh] = index.emplace(alignment.document, documents.size());
          if (fresh)
            documents.push_back(
                {.path = alignment.document, .title = alignment.title, .summaries = {}});
          documents[place->second].summaries.push_back(std::move(alignment));
          ++reading.counts.listed[static_cast<std::size_t>(file.level)];
        } catch (const DataError& error) {
          reading.broken_line(text(file.path.string(), ":", lines.number(), ": ", error.what()));
        }
      }
    } catch (const DataError& error) {
      reading.damaged_file(error.what());
    }
    return documents;
  }

  static void add_summary(SummarizedDocument& document, const std::string& source,
                          const fs::path& file, Reading& reading) {
    std::string bytes;
    try {
      bytes = read_decompressed(file);
    } catch (const DataError& error) {
      reading.damaged_file(error.what());
      return;
    }
    try {
      document.summaries.push_back({.source = source, .text = parse_summary(bytes)});
    } catch (const DataError& error) {
      reading.broken_line(text(file.string(), ": ", error.what()));
    }
  }

  fs::path root_;
  std::vector<AlignmentFile> files_;
};

}  // namespace

std::unique_ptr<SummaryReader> open_summary_tree(const fs::path& path, const SummaryRules& rules) {
  constexpr std::array<const char*, kSummaryLevels> folders = {"book-level-summary-alignments",
                                                               "chapter-level-summary-alignments"};
  const bool inside = fs::is_directory(path / folders[0]) || fs::is_directory(path / folders[1]);
  const fs::path alignments = inside ? path : path / "alignments";
  std::vector<AlignmentFile> files;
  for (const SummaryLevel level : {SummaryLevel::kBook, SummaryLevel::kChapter}) {
    const fs::path folder = alignments / folders[static_cast<std::size_t>(level)];
    if (!rules.wants(level) || !fs::is_directory(folder)) continue;
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.is_regular_file() && decompressed_name(entry.path()).extension() == ".jsonl")
        files.push_back({entry.path(), level, split_of_alignments(entry.path())});
  }
  if (files.empty()) return nullptr;
  std::ranges::sort(files, {},
                    [](const AlignmentFile& file) { return std::pair(file.level, file.path); });
  return std::make_unique<TreeReader>(inside ? folder_of(path) : path, std::move(files), rules);
}

}  // namespace infini
