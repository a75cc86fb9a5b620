// Columns of matrices put side by side and taken apart, by copies: tokens of a batch row among
// others, where a matrix has a row for each batch row.
#pragma once

#include "tensor/tape.h"

namespace infini {

// parts [R, C_i] of one type -> [R, sum of C_i], in their order. A part may come more than once.
Tensor join_columns(const std::vector<Tensor>& parts);

// x [R, C] -> [R, end - begin], which holds nothing of x.
Tensor take_columns(const Tensor& x, Columns columns);

}  // namespace infini
