// What forms of summaries have in common that are a file for each split.
#pragma once

#include "data/summaries.h"

namespace infini {

struct SummaryFile {
  std::filesystem::path path;
  SummaryLevel level = SummaryLevel::kBook;
  std::string split;
};

// Adds the files of `folder`, where it exists, that are `wanted` and named for a split, in the
// order of their names.
void add_split_files(const std::filesystem::path& folder, SummaryLevel level,
                     bool (*wanted)(const std::filesystem::path&), std::vector<SummaryFile>& files);

class SummaryFilesReader : public SummaryReader {
 public:
  SummaryFilesReader(std::vector<SummaryFile> files, const SummaryRules& rules)
      : SummaryReader(rules), files_(std::move(files)) {}

  std::vector<std::string> splits() const override;
  std::int64_t bytes_on_disk(const std::string& split) const override;

 protected:
  void read_split(const std::string& split, Reading& reading) const override;
  // False: the caller wants no more.
  virtual bool read_file(const SummaryFile& file, Reading& reading) const = 0;

 private:
  std::vector<SummaryFile> files_;
};

}  // namespace infini
