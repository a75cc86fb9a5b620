// Products with gelu by kernels of ours for Hopper.
#pragma once

#include "tensor/ops/product.h"

namespace infini {

// How the kernels are shaped, for whoever makes them faster. The default is the fastest that was
// measured.
struct HopperProductPlan {
  int cluster = 1;  // blocks that share what they copy: 1 or 2
  int band = 16;    // tiles of 256 columns that are worked on together
};

// What ProductKernels says of C = gelu(A B^T) and C = (A B) * gelu'(kept), where `kept` holds what
// went into gelu, like C; the same inputs give the same bytes. False, with nothing done, for other
// transpositions, sums into C, types other than bf16, columns of C that are not a multiple of 256,
// a depth that is not one of 64, and devices other than of capability 9.0. A depth below 512 takes
// as long as 512.
bool multiply_gelu_hopper(const Product& product, const Tensor& kept,
                          const HopperProductPlan& plan = {});
bool multiply_gelu_grad_hopper(const Product& product, const Tensor& kept,
                               const HopperProductPlan& plan = {});

}  // namespace infini
