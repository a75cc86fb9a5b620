#include <algorithm>

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/elementwise.h"

namespace infini {
namespace {

constexpr int kThreads = 256;
constexpr int kPacks = 4;  // of a thread, so that several loads are in flight

// out = a + b, or b where a is null. A thread owns kPacks packs, a block's width apart; out may be
// a or b.
template <int n, class To, class From>
__global__ void __launch_bounds__(kThreads)
    add_kernel(const To* a, const From* b, To* out, std::int64_t count) {
  using A = Compute<To>;
  const std::int64_t first = (std::int64_t{blockIdx.x} * kPacks * kThreads + threadIdx.x) * n;
  Held<n, To> as[kPacks];
  Held<n, From> bs[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const std::int64_t i = first + p * kThreads * n;
    if (i < count) bs[p] = hold<n>(b + i);
    if (i < count && a) as[p] = hold<n>(a + i);
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const std::int64_t i = first + p * kThreads * n;
    if (i >= count) continue;
    A sums[n];
#pragma unroll
    for (int e = 0; e < n; ++e) {
      sums[e] = static_cast<A>(bs[p][e]);
      if (a) sums[e] += as[p][e];
    }
    store_pack<n>(out + i, sums);
  }
}

template <class To, class From>
void launch_add(const To* a, const From* b, To* out, std::int64_t count) {
  constexpr int kSize = std::min(kPackSize<To>, kPackSize<From>);
  by_packs<kSize>(
      count, takes_packs<kSize>(a, b, out), [&]<int n>(std::int64_t begin, std::int64_t part) {
        add_kernel<n><<<blocks_for(part, kThreads * kPacks * n), kThreads, 0, cuda_stream()>>>(
            a ? a + begin : a, b + begin, out + begin, part);
        check_launch("add");
      });
}

// A thread for each pack of n columns of the source, of which a row has `across`.
template <int n, class N>
__global__ void __launch_bounds__(kThreads)
    add_columns_kernel(const N* source, std::int64_t packs, std::int64_t across, N* target,
                       std::int64_t leading) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= packs) return;
  Compute<N> values[n];
  load_pack<n>(source + i * n, values);
  put_pack<n>(target + i / across * leading + i % across * n, true, values);
}

// target (+)= factor source + offset, a pack of n elements a thread.
template <int n, class N>
__global__ void __launch_bounds__(kThreads)
    affine_kernel(const N* source, Compute<N> factor, Compute<N> offset, bool accumulate, N* target,
                  std::int64_t count) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * n;
  if (i >= count) return;
  Compute<N> values[n];
  load_pack<n>(source + i, values);
#pragma unroll
  for (int e = 0; e < n; ++e) values[e] = factor * values[e] + offset;
  put_pack<n>(target + i, accumulate, values);
}

// A fixed number, so that sums do not depend on the device: 8 for each of 132 multiprocessors.
constexpr std::int64_t kSumBlocks = 1056;

// Block k of K takes packs k * kThreads ..., then the same K * kThreads packs on, and so forth: a
// thread adds in that order in fp64, separately for each place in a pack.
template <class N>
__global__ void __launch_bounds__(kThreads)
    sum_pieces_kernel(const N* values, std::int64_t count, bool packed, bool of_squares,
                      double* pieces) {
  constexpr int n = kPackSize<N>;
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads * n;
  double sums[n] = {};
  for (std::int64_t first = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * n; first < count;
       first += kPacks * stride) {
    Compute<N> terms[kPacks][n];
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const std::int64_t i = first + p * stride;
      if (packed && i + n <= count) {
        load_pack<n>(values + i, terms[p]);
      } else {
#pragma unroll
        for (int e = 0; e < n; ++e) terms[p][e] = i + e < count ? Compute<N>(values[i + e]) : 0;
      }
    }
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
#pragma unroll
      for (int e = 0; e < n; ++e) {
        const double term = terms[p][e];
        sums[e] += of_squares ? term * term : term;
      }
  }
  double sum = 0;
#pragma unroll
  for (int e = 0; e < n; ++e) sum += sums[e];
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) pieces[blockIdx.x] = sum;
}

// One block adds the pieces: thread t those at t, t + kThreads, ... in order.
__global__ void __launch_bounds__(kThreads)
    sum_total_kernel(const double* pieces, std::int64_t count, double* total) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) sum += pieces[i];
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) *total = sum;
}

class CudaElementwise final : public ElementwiseKernels {
 public:
  void add_into(const Tensor& target, const Tensor& source, bool accumulate) const override {
    dispatch_float(target.dtype(), [&]<class To>() {
      dispatch_float(source.dtype(), [&]<class From>() {
        Native<To>* const to = native<To>(target);
        launch_add<Native<To>, Native<From>>(accumulate ? to : nullptr, native<From>(source), to,
                                             target.size());
      });
    });
  }

  void add_into_columns(const Tensor& target, std::int64_t first,
                        const Tensor& source) const override {
    const std::int64_t columns = source.shape()[1], leading = target.shape()[1];
    dispatch_float(target.dtype(), [&]<class T>() {
      using N = Native<T>;
      constexpr int kSize = kPackSize<N>;
      const N* const from = native<T>(source);
      N* const to = native<T>(target) + first;
      const auto start = [&]<int n>() {
        const std::int64_t packs = source.size() / n;
        add_columns_kernel<n><<<blocks_for(packs, kThreads), kThreads, 0, cuda_stream()>>>(
            from, packs, columns / n, to, leading);
        check_launch("add_columns");
      };
      if (columns % kSize == 0 && leading % kSize == 0 && takes_packs<kSize>(from, to))
        start.template operator()<kSize>();
      else
        start.template operator()<1>();
    });
  }

  void add(const Tensor& x, const Tensor& y, const Tensor& sum) const override {
    dispatch_float(x.dtype(), [&]<class T>() {
      launch_add<Native<T>, Native<T>>(native<T>(x), native<T>(y), native<T>(sum), x.size());
    });
  }

  void affine_into(const GradTarget& target, const Tensor& source, double factor,
                   double offset) const override {
    dispatch_float(source.dtype(), [&]<class T>() {
      using N = Native<T>;
      constexpr int kSize = kPackSize<N>;
      const N* const from = native<T>(source);
      N* const to = native<T>(target.tensor);
      by_packs<kSize>(
          source.size(), takes_packs<kSize>(from, to),
          [&]<int n>(std::int64_t begin, std::int64_t part) {
            affine_kernel<n><<<blocks_for(part, kThreads * n), kThreads, 0, cuda_stream()>>>(
                from + begin, static_cast<Compute<N>>(factor), static_cast<Compute<N>>(offset),
                target.accumulate, to + begin, part);
            check_launch("affine");
          });
    });
  }

  void sum(const Tensor& values, bool of_squares, const Tensor& total) const override {
    const std::int64_t count = values.size();
    const Tensor pieces = Tensor::empty({kSumBlocks}, DType::kFloat64, Device::kCuda);
    unsigned blocks = 0;
    dispatch_float(values.dtype(), [&]<class T>() {
      using N = Native<T>;
      constexpr int kSize = kPackSize<N>;
      const N* const data = native<T>(values);
      blocks = blocks_for(std::min(count, kSumBlocks * kThreads * kSize), kThreads * kSize);
      if (blocks == 0) return;
      sum_pieces_kernel<<<blocks, kThreads, 0, cuda_stream()>>>(
          data, count, takes_packs<kSize>(data), of_squares, pieces.data<double>());
      check_launch("sum");
    });
    sum_total_kernel<<<1, kThreads, 0, cuda_stream()>>>(pieces.data<double>(), blocks,
                                                        total.data<double>());
    check_launch("sum");
  }
};

}  // namespace

const ElementwiseKernels& cuda_elementwise() {
  static const CudaElementwise kernels;
  return kernels;
}

}  // namespace infini
