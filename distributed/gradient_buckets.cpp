#include "distributed/gradient_buckets.h"

#include <algorithm>

namespace infini {

GradientBuckets::GradientBuckets(const Communicator& ranks, const Tensor& gradients,
                                 std::vector<FlatPiece> pieces, double bucket_mebibytes)
    : ranks_(ranks),
      gradients_(gradients),
      pieces_(std::move(pieces)),
      bucket_elements_(std::max<std::int64_t>(
          1,
          static_cast<std::int64_t>(bucket_mebibytes * (1 << 20)) / bytes_of(gradients.dtype()))),
      started_(gradients.size()) {}

void GradientBuckets::final_from(std::int64_t first) {
  if (started_ - first >= bucket_elements_) start(first);
}

void GradientBuckets::finish() {
  if (started_ > 0) start(0);
  ranks_.wait();
  started_ = gradients_.size();
}

void GradientBuckets::start(std::int64_t first) {
  for (const FlatPiece& piece : pieces_) {
    const std::int64_t begin = std::max(piece.begin, first), end = std::min(piece.end, started_);
    if (begin >= end) continue;
    const Tensor part = gradients_.slice(begin, end - begin);
    if (piece.owner == FlatPiece::kEveryone)
      ranks_.all_reduce(part);
    else
      ranks_.reduce(part, piece.owner);
  }
  started_ = first;
}

}  // namespace infini
