#include <algorithm>
#include <type_traits>

#include "tensor/ops/activation.h"
#include "tensor/ops/cuda_math.cuh"

namespace infini {
namespace {

constexpr int kThreads = 256;
constexpr int kPacks = 2;  // of a thread, so that several loads are in flight

// 1 / (1 + e^-x) as exactly as elements of N can show.
template <class N>
__device__ __forceinline__ Compute<N> sigmoid_for(Compute<N> x) {
  if constexpr (std::is_same_v<N, __nv_bfloat16>)
    return reciprocal_approx(1.0f + exp_approx(-x));
  else
    return Compute<N>(1) / (Compute<N>(1) + exp(-x));
}

struct Relu {
  template <class N, class A>
  static __device__ A value(A x) {
    return x > 0 ? x : A(0);
  }
  template <class N, class A>
  static __device__ A slope(A x) {
    return x > 0 ? A(1) : A(0);
  }
};

// gelu(x) = x s with s = sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).
struct Gelu {
  static constexpr double kScale = 1.5957691216057308;  // 2 sqrt(2/pi)
  static constexpr double kCube = 0.044715;

  template <class N, class A>
  static __device__ A sigmoid_of(A x) {
    return sigmoid_for<N>(A(kScale) * (x + A(kCube) * x * x * x));
  }
  template <class N, class A>
  static __device__ A value(A x) {
    return x * sigmoid_of<N>(x);
  }
  template <class N, class A>
  static __device__ A slope(A x) {
    const A s = sigmoid_of<N>(x);
    return s + x * s * (A(1) - s) * A(kScale) * (A(1) + A(3 * kCube) * x * x);
  }
};

// silu(x) = x s with s = sigmoid(x), silu'(x) = s (1 + x (1 - s)).
struct Silu {
  template <class N, class A>
  static __device__ A value(A x) {
    return x * sigmoid_for<N>(x);
  }
  template <class N, class A>
  static __device__ A slope(A x) {
    const A s = sigmoid_for<N>(x);
    return s * (A(1) + x * (A(1) - s));
  }
};

// Where a thread's pack p begins when a block takes kPacks packs for each of its threads.
template <int n>
__device__ __forceinline__ std::int64_t pack_begin(int p) {
  return ((std::int64_t{blockIdx.x} * kPacks + p) * kThreads + threadIdx.x) * n;
}

// A thread owns kPacks packs; slope may be null, or x itself.
template <int n, class Activation, class N>
__global__ void __launch_bounds__(kThreads)
    activation_kernel(const N* x, N* y, N* slope, std::int64_t count) {
  Held<n, N> xs[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (const std::int64_t i = pack_begin<n>(p); i < count) xs[p] = hold<n>(x + i);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const std::int64_t i = pack_begin<n>(p);
    if (i >= count) continue;
    Compute<N> results[n];
#pragma unroll
    for (int e = 0; e < n; ++e) results[e] = Activation::template value<N>(xs[p][e]);
    store_pack<n>(y + i, results);
    if (!slope) continue;
#pragma unroll
    for (int e = 0; e < n; ++e) results[e] = Activation::template slope<N>(xs[p][e]);
    store_pack<n>(slope + i, results);
  }
}

// dx (+)= dy * slope. A thread owns kPacks packs; dx may be dy itself.
template <int n, class N>
__global__ void __launch_bounds__(kThreads)
    slope_kernel(const N* slope, const N* dy, N* dx, bool accumulate, std::int64_t count) {
  Held<n, N> slopes[kPacks], dys[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (const std::int64_t i = pack_begin<n>(p); i < count) {
      slopes[p] = hold<n>(slope + i);
      dys[p] = hold<n>(dy + i);
    }
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const std::int64_t i = pack_begin<n>(p);
    if (i >= count) continue;
    Compute<N> results[n];
#pragma unroll
    for (int e = 0; e < n; ++e) results[e] = slopes[p][e] * dys[p][e];
    put_pack<n>(dx + i, accumulate, results);
  }
}

// One block per row, kPacks packs of a thread at a time. x [R, 2 F] -> y [R, F].
template <int n, class Activation, class N>
__global__ void __launch_bounds__(kThreads) gated_kernel(const N* x, N* y, std::int64_t width) {
  using A = Compute<N>;
  const N *gate = x + blockIdx.x * 2 * width, *up = gate + width;
  y += blockIdx.x * width;
  const std::int64_t step = blockDim.x * n;
  for (std::int64_t first = threadIdx.x * n; first < width; first += kPacks * step) {
    Held<n, N> gates[kPacks], ups[kPacks];
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
      if (const std::int64_t c = first + p * step; c < width) {
        gates[p] = hold<n>(gate + c);
        ups[p] = hold<n>(up + c);
      }
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const std::int64_t c = first + p * step;
      if (c >= width) continue;
      A results[n];
#pragma unroll
      for (int e = 0; e < n; ++e)
        results[e] = Activation::template value<N>(gates[p][e]) * ups[p][e];
      store_pack<n>(y + c, results);
    }
  }
}

// One block per row, kPacks packs of a thread at a time.
template <int n, class Activation, class N>
__global__ void __launch_bounds__(kThreads, 3)
    gated_grad_kernel(const N* x, const N* dy, N* dx, bool accumulate, std::int64_t width) {
  using A = Compute<N>;
  const N *gate = x + blockIdx.x * 2 * width, *up = gate + width;
  N *dgate = dx + blockIdx.x * 2 * width, *dup = dgate + width;
  dy += blockIdx.x * width;
  const std::int64_t step = blockDim.x * n;
  for (std::int64_t first = threadIdx.x * n; first < width; first += kPacks * step) {
    Held<n, N> gates[kPacks], ups[kPacks], dys[kPacks];
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
      if (const std::int64_t c = first + p * step; c < width) {
        gates[p] = hold<n>(gate + c);
        ups[p] = hold<n>(up + c);
        dys[p] = hold<n>(dy + c);
      }
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const std::int64_t c = first + p * step;
      if (c >= width) continue;
      A dgates[n], dups[n];
#pragma unroll
      for (int e = 0; e < n; ++e) {
        const A a = gates[p][e], d = dys[p][e];
        dgates[e] = d * ups[p][e] * Activation::template slope<N>(a);
        dups[e] = d * Activation::template value<N>(a);
      }
      put_pack<n>(dgate + c, accumulate, dgates);
      put_pack<n>(dup + c, accumulate, dups);
    }
  }
}

// Threads of a block that takes a row of `packs`: whole warps.
unsigned row_threads(std::int64_t packs) {
  const std::int64_t wanted = (packs + kPacks - 1) / kPacks;
  return static_cast<unsigned>(std::clamp<std::int64_t>((wanted + 31) / 32 * 32, 32, kThreads));
}

template <class Activation, class N>
void launch_activation(const N* x, N* y, N* slope, std::int64_t count) {
  constexpr int kSize = kPackSize<N>;
  by_packs<kSize>(count, takes_packs<kSize>(x, y, slope),
                  [&]<int n>(std::int64_t begin, std::int64_t part) {
                    activation_kernel<n, Activation>
                        <<<blocks_for(part, kThreads * kPacks * n), kThreads, 0, cuda_stream()>>>(
                            x + begin, y + begin, slope ? slope + begin : slope, part);
                    check_launch("activation");
                  });
}

// use.operator()<Activation>()
template <class Use>
void with(ActivationKernels::Kind kind, Use use) {
  switch (kind) {
    case ActivationKernels::Kind::kRelu:
      return use.template operator()<Relu>();
    case ActivationKernels::Kind::kGelu:
      return use.template operator()<Gelu>();
    case ActivationKernels::Kind::kSilu:
      return use.template operator()<Silu>();
  }
}

// Calls launch.operator()<n>(): n elements at once where every row of the width consists of packs.
template <int n, class Launch>
void by_row_packs(std::int64_t width, bool packed, Launch launch) {
  if (packed && width % n == 0)
    launch.template operator()<n>();
  else
    launch.template operator()<1>();
}

template <class Activation, class T>
void launch_gated(const Tensor& x, const Tensor& y) {
  using N = Native<T>;
  constexpr int kSize = kPackSize<N>;
  const auto [rows, width] = y.rows_and_width();
  const N* const in = native<T>(x);
  N* const out = native<T>(y);
  by_row_packs<kSize>(width, takes_packs<kSize>(in, out), [&, rows = rows, width = width]<int n>() {
    gated_kernel<n, Activation>
        <<<blocks_for(rows, 1), row_threads(width / n), 0, cuda_stream()>>>(in, out, width);
  });
  check_launch("gated");
}

template <class Activation, class T>
void launch_gated_grad(const Tensor& x, const Tensor& dy, const GradTarget& dx) {
  using N = Native<T>;
  constexpr int kSize = kPackSize<N>;
  const auto [rows, width] = dy.rows_and_width();
  const N *in = native<T>(x), *upstream = native<T>(dy);
  N* const out = native<T>(dx.tensor);
  by_row_packs<kSize>(width, takes_packs<kSize>(in, upstream, out),
                      [&, rows = rows, width = width]<int n>() {
                        gated_grad_kernel<n, Activation>
                            <<<blocks_for(rows, 1), row_threads(width / n), 0, cuda_stream()>>>(
                                in, upstream, out, dx.accumulate, width);
                      });
  check_launch("gated_grad");
}

class CudaActivation final : public ActivationKernels {
 public:
  void elementwise(Kind kind, const Tensor& x, const Tensor& y,
                   const Tensor& slope) const override {
    with(kind, [&]<class Activation>() {
      dispatch_float(x.dtype(), [&]<class T>() {
        launch_activation<Activation>(native<T>(x), native<T>(y), native<T>(slope), x.size());
      });
    });
  }

  void elementwise_grad(const Tensor& slope, const Tensor& dy,
                        const GradTarget& dx) const override {
    dispatch_float(slope.dtype(), [&]<class T>() {
      using N = Native<T>;
      constexpr int kSize = kPackSize<N>;
      const N *slopes = native<T>(slope), *upstream = native<T>(dy);
      N* const out = native<T>(dx.tensor);
      by_packs<kSize>(
          slope.size(), takes_packs<kSize>(slopes, upstream, out),
          [&]<int n>(std::int64_t begin, std::int64_t part) {
            slope_kernel<n>
                <<<blocks_for(part, kThreads * kPacks * n), kThreads, 0, cuda_stream()>>>(
                    slopes + begin, upstream + begin, out + begin, dx.accumulate, part);
            check_launch("activation_grad");
          });
    });
  }

  void gated(Kind kind, const Tensor& x, const Tensor& y) const override {
    if (y.size() == 0) return;
    with(kind, [&]<class Activation>() {
      dispatch_float(x.dtype(), [&]<class T>() { launch_gated<Activation, T>(x, y); });
    });
  }

  void gated_grad(Kind kind, const Tensor& x, const Tensor& dy,
                  const GradTarget& dx) const override {
    if (dy.size() == 0) return;
    with(kind, [&]<class Activation>() {
      dispatch_float(x.dtype(), [&]<class T>() { launch_gated_grad<Activation, T>(x, dy, dx); });
    });
  }
};

}  // namespace

const ActivationKernels& cuda_activation() {
  static const CudaActivation kernels;
  return kernels;
}

}  // namespace infini
