#include "distributed/gradient_buckets.h"

#include <algorithm>

namespace infini {

GradientBuckets::GradientBuckets(const Communicator& ranks, const Tensor& gradients,
                                 double bucket_mebibytes)
    : ranks_(ranks),
      gradients_(gradients),
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
  ranks_.all_reduce(gradients_.slice(first, started_ - first));
  started_ = first;
}

}  // namespace infini
