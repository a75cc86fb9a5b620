// Products by oneDNN: the only file that knows its API, 2.6 and 3.x alike.
#pragma once

#include "tensor/ops/product.h"

namespace infini {

// Computes product, whose matrices fit together as op(A) [m, k] and op(B) [k, n], none of them
// empty. Returns false, with nothing done, where oneDNN is not built in or has no optimised kernel:
// fp64 always, bf16 on processors without the instructions it needs. Safe to call from several
// threads; inside a parallel loop it uses the calling thread alone.
bool multiply_onednn(const Product& product, std::int64_t m, std::int64_t n, std::int64_t k);

}  // namespace infini
