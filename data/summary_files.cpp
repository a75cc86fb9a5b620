#include "data/summary_files.h"

#include <algorithm>

namespace infini {

namespace fs = std::filesystem;

void add_split_files(const fs::path& folder, SummaryLevel level, bool (*wanted)(const fs::path&),
                     std::vector<SummaryFile>& files) {
  if (!fs::is_directory(folder)) return;
  const auto first = static_cast<std::ptrdiff_t>(files.size());
  for (const auto& entry : fs::directory_iterator(folder))
    if (const auto split = split_named(entry.path());
        split && wanted(entry.path()) && entry.is_regular_file())
      files.push_back({entry.path(), level, *split});
  std::sort(files.begin() + first, files.end(),
            [](const SummaryFile& a, const SummaryFile& b) { return a.path < b.path; });
}

std::vector<std::string> SummaryFilesReader::splits() const {
  std::vector<std::string> names;
  for (const char* name : {"train", "validation", "test"})
    if (std::ranges::any_of(files_, [&](const auto& file) { return file.split == name; }))
      names.push_back(name);
  return names;
}

std::int64_t SummaryFilesReader::bytes_on_disk(const std::string& split) const {
  std::int64_t bytes = 0;
  for (const SummaryFile& file : files_)
    if (file.split == split) bytes += static_cast<std::int64_t>(fs::file_size(file.path));
  return bytes;
}

void SummaryFilesReader::read_split(const std::string& split, Reading& reading) const {
  for (const SummaryFile& file : files_)
    if (file.split == split && !read_file(file, reading)) return;
}

}  // namespace infini
