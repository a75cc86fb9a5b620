#include "distributed/config.h"

#include <bit>

namespace infini {
namespace {

// More ranks than there are anywhere; products of three such numbers stay numbers.
constexpr int kMostRanks = 1 << 20;

void check_axis(const char* key, int ranks, int least) {
  check<ConfigError>(ranks >= least && ranks <= kMostRanks, key, " must be from ", least, " to ",
                     kMostRanks, ", got ", ranks);
}

void check_leaves(const char* key, int leaves) {
  check<ConfigError>(leaves >= 0 && (leaves == 0 || std::has_single_bit(unsigned(leaves))), key,
                     " must be 0 or a power of two, got ", leaves);
}

}  // namespace

void ParallelConfig::validate() const {
  check_axis("parallel.data", data, 0);
  check_axis("parallel.tensor", tensor, 1);
  check_axis("parallel.segment", segment, 1);
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
