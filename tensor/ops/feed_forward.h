// The feed-forward part of a block with the gelu activation (activation.h) as one op, so that the
// activation and its gradient ride on the products beside them:
//   y = gelu(x up^T) down^T + residual
#pragma once

#include "tensor/tensor_group.h"

namespace infini {

// x [R, D], up [F, D], down [O, F], residual [R, O] or empty -> y [R, O]; one type. The processes
// of a group have F columns each: y and dx are summed over them.
Tensor gelu_feed_forward(const Tensor& x, const Tensor& up, const Tensor& down,
                         const Tensor& residual = {}, const TensorGroup* group = nullptr);

}  // namespace infini
