#include <algorithm>

#include "tensor/ops/bias.h"
#include "tensor/ops/column_sums.cuh"

namespace infini {
namespace {

constexpr int kThreads = 256;
constexpr int kSlices = 8;                 // threads that share a column of a piece
constexpr std::int64_t kMostPieces = 256;  // of the rows, summed apart

// A thread owns a pack of n columns of one row.
template <int n, class N>
__global__ void __launch_bounds__(kThreads)
    add_bias_kernel(const N* x, const Compute<N>* bias, std::int64_t packs, std::int64_t row_packs,
                    N* y) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= packs) return;
  Compute<N> values[n], added[n];
  load_pack<n>(x + i * n, values);
  load_pack<n>(bias + i % row_packs * n, added);
#pragma unroll
  for (int e = 0; e < n; ++e) values[e] += added[e];
  store_pack<n>(y + i * n, values);
}

// A block adds 32 columns of every gridDim.x * kSlices-th row, its slices in order.
template <class N>
__global__ void __launch_bounds__(32 * kSlices)
    dbias_kernel(const N* dy, std::int64_t rows, std::int64_t width, Compute<N>* partial) {
  using A = Compute<N>;
  __shared__ A slices[kSlices][32];
  const std::int64_t c = std::int64_t{blockIdx.y} * 32 + threadIdx.x;
  A sum = 0;
  if (c < width)
    for (std::int64_t r = std::int64_t{blockIdx.x} * kSlices + threadIdx.y; r < rows;
         r += gridDim.x * kSlices)
      sum += A(dy[r * width + c]);
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || c >= width) return;
  sum = 0;
  for (int slice = 0; slice < kSlices; ++slice) sum += slices[slice][threadIdx.x];
  partial[blockIdx.x * width + c] = sum;
}

class CudaBias final : public BiasKernels {
 public:
  void add_bias(const Tensor& x, const Tensor& bias, const Tensor& y) const override {
    dispatch_float(x.dtype(), [&]<class T>() {
      using N = Native<T>;
      constexpr int kSize = kPackSize<N>;
      const auto [rows, width] = x.rows_and_width();
      const N* const in = native<T>(x);
      N* const out = native<T>(y);
      const auto* const added = bias.data<Compute<N>>();
      const auto run = [&, rows = rows, width = width]<int n>() {
        const std::int64_t packs = rows * width / n;
        if (packs == 0) return;
        add_bias_kernel<n><<<blocks_for(packs, kThreads), kThreads, 0, cuda_stream()>>>(
            in, added, packs, width / n, out);
        check_launch("add_bias");
      };
      if (width % kSize == 0 && takes_packs<kSize>(in, out) && takes_packs<kSize>(added))
        run.template operator()<kSize>();
      else
        run.template operator()<1>();
    });
  }

  void add_bias_grad(const Tensor& dy, const GradTarget& dbias) const override {
    dispatch_float(dy.dtype(), [&]<class T>() {
      using N = Native<T>;
      using A = Compute<N>;
      const auto [rows, width] = dy.rows_and_width();
      if (width == 0) return;
      const std::int64_t pieces =
          std::clamp<std::int64_t>((rows + kSlices - 1) / kSlices, 1, kMostPieces);
      const Tensor partial = Tensor::empty({pieces, width}, dtype_of<A>(), Device::kCuda);
      dbias_kernel<<<dim3(blocks_for(pieces, 1), blocks_for(width, 32)), dim3(32, kSlices), 0,
                     cuda_stream()>>>(native<T>(dy), rows, width, partial.data<A>());
      check_launch("add_bias_grad");
      add_column_sums<A>("add_bias_grad", partial, 0, dbias);
    });
  }
};

}  // namespace

const BiasKernels& cuda_bias() {
  static const CudaBias kernels;
  return kernels;
}

}  // namespace infini
