#include "distributed/config.h"

#include <bit>

namespace infini {
namespace {

void check_leaves(const char* key, int leaves) {
  check<ConfigError>(leaves >= 0 && (leaves == 0 || std::has_single_bit(unsigned(leaves))), key,
                     " must be 0 or a power of two, got ", leaves);
}

}  // namespace

void ParallelConfig::validate() const {
  check<ConfigError>(data >= 0, "parallel.data must not be negative, got ", data);
  check<ConfigError>(tensor >= 1, "parallel.tensor must be at least 1, got ", tensor);
  check<ConfigError>(segment >= 1, "parallel.segment must be at least 1, got ", segment);
  check_leaves("parallel.row_leaves", row_leaves);
  check_leaves("parallel.segment_leaves", segment_leaves);
  check<ConfigError>(silence_seconds >= 1, "parallel.silence_seconds must be at least 1, got ",
                     silence_seconds);
  check<ConfigError>(progress_seconds >= 0, "parallel.progress_seconds must not be negative, got ",
                     progress_seconds);
  check<ConfigError>(bucket_mebibytes > 0, "parallel.bucket_mebibytes must be positive, got ",
                     bucket_mebibytes);
}

}  // namespace infini
