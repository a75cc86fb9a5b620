#include "trainer/metrics.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "data/durable_file.h"
#include "tensor/error.h"

namespace infini {
namespace {

std::string number(double value) {
  if (!std::isfinite(value)) return "null";
  char digits[32];
  const bool whole = std::abs(value) < 0x1p53 && value == std::trunc(value);
  const auto end =
      whole ? std::to_chars(digits, digits + sizeof digits, static_cast<std::int64_t>(value))
            : std::to_chars(digits, digits + sizeof digits, value);
  return {digits, end.ptr};
}

// The step of a line, or nothing where it is none of ours.
std::optional<std::int64_t> step_of(std::string_view line) {
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer())
    return std::nullopt;
  return json["step"].get<std::int64_t>();
}

// Bytes of the whole lines before the first of a step after `last_step`, those among them that
// somebody else wrote included.
std::size_t kept_bytes(std::string_view log, std::int64_t last_step) {
  std::size_t kept = 0;
  for (std::size_t end; (end = log.find('\n', kept)) != log.npos; kept = end + 1)
    if (step_of(log.substr(kept, end - kept)).value_or(last_step) > last_step) break;
  return kept;
}

}  // namespace

std::string metrics_line(std::int64_t step, const Metrics& metrics) {
  std::string line = text("{\"step\": ", step);
  for (const auto& [name, value] : metrics)
    line += text(", ", nlohmann::json(name).dump(), ": ", number(value));
  return line + "}\n";
}

MetricsLog::MetricsLog(const std::filesystem::path& file, std::int64_t resumed_step) : file_(file) {
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
  std::size_t keep = 0;
  if (std::filesystem::exists(file)) keep = kept_bytes(read_file(file), resumed_step);
  fd_ = open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  check<DeviceError>(fd_ >= 0 && ftruncate(fd_, static_cast<off_t>(keep)) == 0, file.string(),
                     ": cannot be opened for writing: ", std::strerror(errno));
}

MetricsLog::~MetricsLog() { close(fd_); }

void MetricsLog::append(std::int64_t step, const Metrics& metrics) {
  struct stat before = {};
  fstat(fd_, &before);
  const std::string line = metrics_line(step, metrics);
  ssize_t written = 0;
  do {
    written = write(fd_, line.data(), line.size());
  } while (written < 0 && errno == EINTR);
  if (written == static_cast<ssize_t>(line.size())) return;

  const int cause = written < 0 ? errno : ENOSPC;
  if (written > 0 && ftruncate(fd_, before.st_size) != 0)
    spdlog::warn("{}: a line is incomplete", file_.string());
  if (!std::exchange(failed_, true))
    spdlog::warn("{}: lines are lost: {}", file_.string(), std::strerror(cause));
}

}  // namespace infini
