// Scratch tiles of CPU kernels that work head by head.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/dtype.h"

namespace infini {

// A buffer of one thread that keeps its size between calls. Each (type, id) is a buffer of its own.
template <class A, int id>
A* scratch(std::int64_t count) {
  thread_local std::vector<A> buffer;
  if (static_cast<std::int64_t>(buffer.size()) < count) buffer.resize(count);
  return buffer.data();
}

// Writes a dense tile [rows, columns] into rows of `out`, or adds it.
template <class T, class A>
void store_tile(const A* tile, std::int64_t rows, std::int64_t columns, T* out,
                std::int64_t leading, bool accumulate) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const A* from = tile + r * columns;
    T* to = out + r * leading;
    if (accumulate)
      for (std::int64_t c = 0; c < columns; ++c) to[c] = T(A(to[c]) + from[c]);
    else
      for (std::int64_t c = 0; c < columns; ++c) to[c] = T(from[c]);
  }
}

template <class A>
A dot(const A* x, const A* y, std::int64_t count) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) sum += x[i] * y[i];
  return sum;
}

}  // namespace infini
