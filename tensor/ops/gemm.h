// Matrix product on one thread, for use inside a parallel loop and where oneDNN is absent.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace infini {

// C[m, n] = (accumulate ? C : 0) + op(A)[m, k] op(B)[k, n], row-major, leading dimensions in
// elements. op(A) = A [m, k], or the transpose of A [k, m] when transpose_a; B likewise. C overlaps
// neither. Sums in fp64 for double, else in fp32. The order in which an element is summed depends
// on k alone, so that a product computed in tiles has the bytes of the whole. With no rows or
// columns it does nothing. Instantiated for double throughout, and for every mix of float and
// BFloat16.
template <class A, class B, class C>
void gemm(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
          const A* a, std::int64_t lda, const B* b, std::int64_t ldb, C* c, std::int64_t ldc,
          bool accumulate);

}  // namespace infini
