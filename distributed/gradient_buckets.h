// The sum of gradients over ranks, exchanged in pieces while the backward pass goes on.
#pragma once

#include "distributed/communicator.h"
#include "distributed/owners.h"

namespace infini {

// Gradients lie in one flat buffer and become final from its end to its beginning.
class GradientBuckets {
 public:
  // gradients [P], the same elements on each of `ranks`. Of a piece with an owner, that rank alone
  // receives the sum, and what the others have afterwards is undefined.
  GradientBuckets(const Communicator& ranks, const Tensor& gradients, std::vector<FlatPiece> pieces,
                  double bucket_mebibytes);

  // Elements from `first` on have their last values of this rank: a piece large enough is started.
  void final_from(std::int64_t first);
  // So have all; what the device is asked for next sees the sums over the ranks. Ready for the next
  // step then.
  void finish();

 private:
  void start(std::int64_t first);

  Communicator ranks_;
  Tensor gradients_;
  std::vector<FlatPiece> pieces_;
  std::int64_t bucket_elements_;
  std::int64_t started_;  // elements from here on are on their way
};

}  // namespace infini
