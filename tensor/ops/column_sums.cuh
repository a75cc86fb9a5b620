// Sums over the rows of a short matrix, what the blocks of a kernel have added up, in a fixed
// order.
#pragma once

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/elementwise.h"
#include "tensor/tape.h"

namespace infini {

constexpr int kSumSlices = 32;  // threads that share the sum of a column

// sums[c] (+)= the sum of partial[., c] [P, C]. A block takes 32 columns; of each, kSumSlices
// threads every kSumSlices-th row, and their sums are added in order.
template <class A>
__global__ void __launch_bounds__(32 * kSumSlices)
    column_sums_kernel(const A* partial, std::int64_t pieces, std::int64_t leading,
                       std::int64_t width, bool accumulate, A* sums) {
  __shared__ A slices[kSumSlices][32];
  const std::int64_t c = std::int64_t{blockIdx.x} * 32 + threadIdx.x;
  A sum = 0;
  if (c < width)
    for (std::int64_t piece = threadIdx.y; piece < pieces; piece += kSumSlices)
      sum += partial[piece * leading + c];
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || c >= width) return;
  sum = 0;
  for (int slice = 0; slice < kSumSlices; ++slice) sum += slices[slice][threadIdx.x];
  sums[c] = accumulate ? sums[c] + sum : sum;
}

// Columns [first, first + C) of partial [P, .], summed into a target [C] of any type.
template <class A>
void add_column_sums(const char* who, const Tensor& partial, std::int64_t first,
                     const GradTarget& target) {
  const auto [pieces, leading] = partial.dims<2>();
  const std::int64_t width = target.tensor.size();
  const bool same = target.tensor.dtype() == dtype_of<A>();
  const Tensor total = same ? target.tensor : Tensor::empty({width}, dtype_of<A>(), Device::kCuda);
  column_sums_kernel<<<blocks_for(width, 32), dim3(32, kSumSlices), 0, cuda_stream()>>>(
      partial.data<A>() + first, pieces, leading, width, same && target.accumulate,
      total.data<A>());
  check_launch(who);
  if (!same) add_into(target, total);
}

}  // namespace infini
