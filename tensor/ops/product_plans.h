// Which algorithm of cuBLASLt computes a product: the fastest of its candidates, timed once for
// each shape. The choice decides how sums are cut, so it is kept on disk: a run that repeats gives
// the same bytes. Only for CUDA builds.
#pragma once

#include <cublasLt.h>

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "tensor/tensor.h"

namespace infini {

// What a choice depends on, in the column-major order of cuBLASLt: D [m, n] = op(A) [m, k] op(B)
// [k, n], `batch` times.
struct ProductShape {
  std::int64_t m, n, k, batch;
  bool transpose_a, transpose_b, accumulate;
  DType in, out;
  bool tf32;
  int epilogue;   // cublasLtEpilogue_t
  int alignment;  // of all matrices, in bytes, at most 16

  auto operator<=>(const ProductShape&) const = default;
};

class ProductPlans {
 public:
  // Reads what earlier runs chose on a card of this name with this library, if there is such a
  // file.
  ProductPlans();

  using Accepts = std::function<bool(const cublasLtMatmulAlgo_t&)>;
  // The algorithm for a shape, if one is known. What was read is asked about once: a file that
  // processes have written to side by side, or that was damaged, is not to end a run.
  const cublasLtMatmulAlgo_t* find(const ProductShape& shape, const Accepts& accepts);
  // Remembers it, also on disk where that is possible.
  void add(const ProductShape& shape, const cublasLtMatmulAlgo_t& algorithm);

 private:
  struct Plan {
    cublasLtMatmulAlgo_t algorithm;
    bool was_read;  // and not asked about yet
  };

  std::string path_;  // empty where there is no place to write
  std::map<ProductShape, Plan> known_;
};

}  // namespace infini
