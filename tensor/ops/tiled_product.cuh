// Batched products by plain arithmetic for any type and any extents, with operands that are
// computed while they are loaded. The tensor cores have memory_tiles.cuh.
#pragma once

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/launch.cuh"

namespace infini {

// A Product says what is multiplied:
//   int rows, columns, depth;
//   A x(int batch, int row, int d), y(int batch, int d, int column);
//   void store(int batch, int row, int column, A sum);
//   static constexpr bool kXByDepth, kYByDepth: whether neighbours along the depth, rather than
//   along rows and columns, are neighbours in memory.
//
// One block makes 64 x 64 numbers of one product of the batch, each thread 4 x 4 of them, with the
// operands in shared memory 16 deep. Bound by the rate of multiply-adds.
template <class A, class Product>
__global__ void __launch_bounds__(256) tiled_product_kernel(Product product) {
  constexpr int kTile = 64, kDepth = 16;
  __shared__ Pack<A, 4> x_tile[kDepth][kTile / 4 + 1], y_tile[kDepth][kTile / 4 + 1];
  const int row_tiles = (product.rows + kTile - 1) / kTile;
  const int batch = blockIdx.x / row_tiles, first_row = blockIdx.x % row_tiles * kTile;
  const int first_column = blockIdx.y * kTile;
  const int thread_row = threadIdx.x / 16, thread_column = threadIdx.x % 16;

  A sums[4][4] = {};
  for (int first = 0; first < product.depth; first += kDepth) {
    for (int i = threadIdx.x; i < kTile * kDepth; i += 256) {
      const int by_depth = i % kDepth, along = i / kDepth, d = i / kTile, by_tile = i % kTile;
      const int x_d = Product::kXByDepth ? by_depth : d, r = Product::kXByDepth ? along : by_tile;
      const int y_d = Product::kYByDepth ? by_depth : d, c = Product::kYByDepth ? along : by_tile;
      const bool x_in = first + x_d < product.depth && first_row + r < product.rows;
      const bool y_in = first + y_d < product.depth && first_column + c < product.columns;
      x_tile[x_d][r / 4].elements[r % 4] =
          x_in ? product.x(batch, first_row + r, first + x_d) : A(0);
      y_tile[y_d][c / 4].elements[c % 4] =
          y_in ? product.y(batch, first + y_d, first_column + c) : A(0);
    }
    __syncthreads();
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      const Pack<A, 4> x = x_tile[d][thread_row], y = y_tile[d][thread_column];
#pragma unroll
      for (int r = 0; r < 4; ++r)
#pragma unroll
        for (int c = 0; c < 4; ++c) sums[r][c] += x.elements[r] * y.elements[c];
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < 4; ++r)
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int row = first_row + thread_row * 4 + r, column = first_column + thread_column * 4 + c;
      if (row < product.rows && column < product.columns)
        product.store(batch, row, column, sums[r][c]);
    }
}

template <class A, class Product>
void tiled_product(const char* who, std::int64_t batch, const Product& product) {
  const dim3 blocks(static_cast<unsigned>(batch * blocks_for(product.rows, 64)),
                    blocks_for(product.columns, 64));
  launch(who, tiled_product_kernel<A, Product>, blocks, 256, 0, product);
}

// Writes a number or adds it to what is there.
template <class N>
__device__ __forceinline__ void put(N* to, Compute<N> value, bool accumulate) {
  *to = N(accumulate ? Compute<N>(*to) + value : value);
}

}  // namespace infini
