// Adding the parts of a step as a balanced binary tree, so that the bits of the sum do not depend
// on how many ranks shared the parts.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace infini {

// The sum of a power of two of leaves, each of which is computed into the same tensors. What is
// held beside them is one copy for each level of the tree.
class GradientTree {
 public:
  GradientTree(std::vector<Tensor> sums, int leaves) : sums_(std::move(sums)), leaves_(leaves) {}

  // The tensors hold the next leaf: adds the leaves that are complete with it. Unless it is the
  // last, the tensors are zeros afterwards, ready for the one after it.
  void add_leaf();

 private:
  std::vector<Tensor> sums_;
  std::vector<std::vector<Tensor>> waiting_;  // left siblings, those of the highest level first
  int leaves_, added_ = 0;
};

}  // namespace infini
