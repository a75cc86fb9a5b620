#include "tensor/tensor_group.h"

#include "tensor/ops/elementwise.h"

namespace infini {

// What stands in the target already is whole: the parts are added up beside it.
PartialGradient::PartialGradient(const GradTarget& target, const TensorGroup* group)
    : target_(target), part_(target), group_(group) {
  if (group && target && target.accumulate)
    part_ = {.tensor = Tensor::empty_like(target.tensor), .accumulate = false};
}

void PartialGradient::send() const {
  if (group_ && part_) group_->sum(part_.tensor);
}

void PartialGradient::receive() const {
  if (!group_ || !part_) return;
  group_->wait();
  if (target_.accumulate) add_into(target_, part_.tensor);
}

}  // namespace infini
