// What a block does to rows besides attention, for an attention that takes rows of its own through
// the block.
#pragma once

#include <functional>

#include "tensor/tensor.h"

namespace infini {

struct BlockRows {
  std::function<Tensor(const Tensor& x)> normed;        // what attention takes of x [..., D]
  std::function<Tensor(const Tensor& y)> feed_forward;  // the residual stream after the block, of
                                                        // that after attention
};

}  // namespace infini
