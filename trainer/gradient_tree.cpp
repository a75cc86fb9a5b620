#include "trainer/gradient_tree.h"

#include "tensor/ops/elementwise.h"

namespace infini {

void GradientTree::add_leaf() {
  // Leaf n, counted from 0, completes as many subtrees as n ends with ones in binary.
  for (int n = added_++; n & 1; n >>= 1) {
    for (std::size_t i = 0; i < sums_.size(); ++i)
      add_into({.tensor = sums_[i], .accumulate = true}, waiting_.back()[i]);
    waiting_.pop_back();
  }
  if (added_ == leaves_) return;
  waiting_.emplace_back();
  for (const Tensor& sum : sums_) {
    waiting_.back().push_back(sum.clone());
    sum.fill_zero();
  }
}

}  // namespace infini
