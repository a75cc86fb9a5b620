// The record of a run: <run>/metrics.jsonl, one JSON object a line, "step" first.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace infini {

// Names and values in the order in which they are written.
using Metrics = std::vector<std::pair<std::string, double>>;

// {"step": 12, "loss": 2.5} and a newline. Whole numbers are written as such, values that are not
// finite as null.
std::string metrics_line(std::int64_t step, const Metrics& metrics);

// Each append() is one write of one line. A full disk costs lines, never the run: it is logged
// once.
class MetricsLog {
 public:
  // Creates the file, or opens it and drops what was written after `resumed_step` (and a last line
  // that a killed process left unfinished), so that a resumed run leaves the log of an unbroken
  // one.
  MetricsLog(const std::filesystem::path& file, std::int64_t resumed_step);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void append(std::int64_t step, const Metrics& metrics);

 private:
  std::filesystem::path file_;
  int fd_ = -1;
  bool failed_ = false;
};

}  // namespace infini
