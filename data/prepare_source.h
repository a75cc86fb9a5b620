// What prepare() makes stores from: a plain corpus, or documents with summaries. Not for others.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/prepare.h"
#include "data/tokenizer.h"

namespace infini {

using ReportProgress = std::function<void(const PrepareProgress&)>;

class PrepareSource {
 public:
  virtual ~PrepareSource() = default;

  virtual std::vector<std::string> splits() const = 0;
  // About `bytes` of text to train a tokenizer on. Throws DataError where there is none.
  virtual std::string sample(std::int64_t bytes, const ReportProgress& report) const = 0;
  // The store of a split; a result without documents: none was written.
  virtual PreparedSplit encode(const std::string& split, const Tokenizer& tokenizer,
                               const std::filesystem::path& path, int threads,
                               const ReportProgress& report) const = 0;
  // Called with all splits in the report.
  virtual void finish(const std::filesystem::path& /*output*/, PrepareReport& /*report*/) const {}
};

std::unique_ptr<PrepareSource> plain_source(const PrepareOptions& options);
std::unique_ptr<PrepareSource> example_source(const PrepareOptions& options);

// Takes the beginning of every text, in the same proportion, so that a sample smaller than a corpus
// still comes from all of it.
class TextSample {
 public:
  TextSample(std::int64_t bytes, std::int64_t bytes_on_disk, const ReportProgress& report);

  bool add(std::string_view text);  // false: it is full
  std::int64_t documents() const { return progress_.documents; }
  std::string take() { return std::move(sample_); }

 private:
  std::int64_t bytes_;
  double share_;
  const ReportProgress& report_;
  PrepareProgress progress_{.stage = "sample"};
  std::string sample_;
};

// Puts the hash of a document behind those before it, for TokenStore::source_hash().
std::uint64_t chained_hash(std::uint64_t before, std::uint64_t next);

}  // namespace infini
