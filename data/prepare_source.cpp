#include "data/prepare_source.h"

#include <xxhash.h>

#include <algorithm>

namespace infini {
namespace {

// At most `limit` bytes from the front of `text`, not cutting a character of UTF-8.
std::string_view front(std::string_view text, std::int64_t limit) {
  if (static_cast<std::int64_t>(text.size()) <= limit) return text;
  auto end = static_cast<std::size_t>(limit);
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

}  // namespace

TextSample::TextSample(std::int64_t bytes, std::int64_t bytes_on_disk, const ReportProgress& report)
    : bytes_(bytes),
      share_(std::min(1.0, static_cast<double>(bytes) /
                               static_cast<double>(std::max<std::int64_t>(bytes_on_disk, 1)))),
      report_(report) {}

bool TextSample::add(std::string_view text) {
  const auto wanted = static_cast<std::int64_t>(share_ * static_cast<double>(text.size())) + 1;
  const auto left = bytes_ - static_cast<std::int64_t>(sample_.size());
  sample_ += front(text, std::min(wanted, left));
  ++progress_.documents;
  progress_.bytes = static_cast<std::int64_t>(sample_.size());
  report_(progress_);
  return progress_.bytes + 4 < bytes_;
}

std::uint64_t chained_hash(std::uint64_t before, std::uint64_t next) {
  const std::uint64_t pair[] = {before, next};
  return XXH3_64bits(pair, sizeof pair);
}

}  // namespace infini
