#include <cmath>

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/detach.cuh"
#include "tensor/ops/launch.cuh"
#include "tensor/ops/timestep_norm.h"

namespace infini {
namespace {

constexpr int kThreads = 256;
constexpr int kScan = 256;           // tokens that a block of a scan takes at a time, one a thread
constexpr std::int64_t kRows = 128;  // rows of a partial sum over rows

// Rows of text and their groups, see timestep_norm.cpp.
template <class N>
struct Groups {
  using A = Compute<N>;
  const N* x;
  const A *weight, *bias;
  const std::uint8_t *keep, *resets;
  A *counts, *moments;
  std::int64_t width, channels, segments, tokens, rows;
  int groups;
  A eps;

  __device__ std::int64_t row_tokens() const { return segments * tokens; }
  __device__ bool counts_row(std::int64_t r) const { return !keep || keep[r]; }
  // Whether the memory is emptied before row r.
  __device__ bool starts(std::int64_t r) const {
    return resets && r % tokens == 0 && resets[r / tokens];
  }
  __device__ A inverse(std::int64_t r, int g) const {
    return A(1) / sqrt((counts[r] > 0 ? moments[(r * groups + g) * 2 + 1] : A(1)) + eps);
  }
};

template <class T, class N = Native<T>>
Groups<N> groups_of(const TimestepNormKernels::Norm& args) {
  using A = Compute<N>;
  const auto flags = [](const Tensor& tensor) {
    return tensor ? tensor.data<std::uint8_t>() : nullptr;
  };
  return {.x = native<T>(args.x),
          .weight = args.weight.data<A>(),
          .bias = args.bias.data<A>(),
          .keep = flags(args.keep),
          .resets = flags(args.resets),
          .counts = args.counts.data<A>(),
          .moments = args.moments.data<A>(),
          .width = args.x.shape()[1],
          .channels = args.x.shape()[1] / args.groups,
          .segments = args.layout.segments,
          .tokens = args.layout.tokens,
          .rows = args.x.shape()[0],
          .groups = args.groups,
          .eps = static_cast<A>(args.eps)};
}

// A warp for each row and group: the mean of its numbers and the mean of their squared distances.
template <class N>
__global__ void own_moments_kernel(Groups<N> in) {
  using A = Compute<N>;
  const std::int64_t item = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
  if (item >= in.rows * in.groups) return;
  const N* x = in.x + item / in.groups * in.width + item % in.groups * in.channels;
  const int lane = threadIdx.x % 32;
  A sum = 0, squares = 0;
  for (std::int64_t c = lane; c < in.channels; c += 32) sum += A(x[c]);
  const A mean = warp_sum(sum) / A(in.channels);
  for (std::int64_t c = lane; c < in.channels; c += 32)
    squares += (A(x[c]) - mean) * (A(x[c]) - mean);
  squares = warp_sum(squares);
  if (lane > 0) return;
  in.moments[item * 2] = mean;
  in.moments[item * 2 + 1] = squares / A(in.channels);
}

// The moments of n tokens; `cut`: what stands before them was emptied.
template <class A>
struct Counted {
  A n, mean, variance;
  bool cut;
};
template <class A>
__device__ Counted<A> joined(const Counted<A>& first, const Counted<A>& second) {
  if (second.cut) return second;
  Counted<A> both{first.n + second.n, first.mean, first.variance, first.cut};
  if (both.n == 0) return both;
  const A share = second.n / both.n, step = second.mean - first.mean;
  both.mean += step * share;
  both.variance += (second.variance - first.variance + step * step * (1 - share)) * share;
  return both;
}

// A block for each group of a batch row: its tokens' moments, kScan of them at a time, become those
// of all tokens up to each.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kScan)
    count_kernel(Groups<N> in, const A* before_tokens, const A* before_moments, A* after_tokens,
                 A* after_moments) {
  __shared__ Counted<A> held[kScan];
  const int g = blockIdx.x, lane = threadIdx.x;
  const std::int64_t b = blockIdx.y, count = in.row_tokens(), state = (b * in.groups + g) * 2;
  Counted<A> carried{before_tokens[b], before_moments[state], before_moments[state + 1], false};
  for (std::int64_t begin = 0; begin < count; begin += kScan) {
    const std::int64_t r = b * count + begin + lane;
    Counted<A> mine{0, 0, 0, false};
    if (begin + lane < count) {
      const A* own = in.moments + (r * in.groups + g) * 2;
      if (in.counts_row(r)) mine = {1, own[0], own[1], false};
      mine.cut = in.starts(r);
    }
    for (int distance = 1; distance < kScan; distance *= 2) {
      held[lane] = mine;
      __syncthreads();
      if (lane >= distance) mine = joined(held[lane - distance], mine);
      __syncthreads();
    }
    mine = joined(carried, mine);
    if (begin + lane < count) {
      A* own = in.moments + (r * in.groups + g) * 2;
      own[0] = mine.mean;
      own[1] = mine.variance;
      if (g == 0) in.counts[r] = mine.n;
    }
    held[lane] = mine;
    __syncthreads();
    carried = held[min(std::int64_t{kScan}, count - begin) - 1];
    carried.cut = false;
    __syncthreads();
  }
  if (lane > 0) return;
  after_moments[state] = carried.mean;
  after_moments[state + 1] = carried.variance;
  if (g == 0) after_tokens[b] = carried.n;
}

// A thread for each number.
template <class N>
__global__ void normalise_kernel(Groups<N> in, N* y) {
  using A = Compute<N>;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= in.rows * in.width) return;
  const std::int64_t r = i / in.width, c = i % in.width;
  const int g = static_cast<int>(c / in.channels);
  const A mean = in.moments[(r * in.groups + g) * 2];
  y[i] = N((A(in.x[i]) - mean) * in.inverse(r, g) * in.weight[c] + in.bias[c]);
}

// What dx is made of, [R, G] each: A, B and D of timestep_norm.cpp.
template <class A>
struct Sums {
  A *by_mean, *by_variance, *by_both;
};

// A warp for each row and group: what the row itself adds.
template <class N, class A = Compute<N>>
__global__ void own_sums_kernel(Groups<N> in, const N* dy, Sums<A> sums) {
  const std::int64_t item = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
  if (item >= in.rows * in.groups) return;
  const std::int64_t r = item / in.groups;
  const int g = static_cast<int>(item % in.groups), lane = threadIdx.x % 32;
  const std::int64_t first = r * in.width + g * in.channels;
  const A mean = in.moments[item * 2], n = in.counts[r] * A(in.channels),
          inverse = in.inverse(r, g);
  A sum = 0, product = 0;
  for (std::int64_t c = lane; dy && c < in.channels; c += 32) {
    const A upstream = A(dy[first + c]) * in.weight[g * in.channels + c];
    sum += upstream;
    product += upstream * (A(in.x[first + c]) - mean);
  }
  sum = warp_sum(sum);
  product = warp_sum(product);
  if (lane > 0) return;
  const A dmean = n > 0 ? -inverse * sum / n : A(0),
          dvariance = n > 0 ? -inverse * inverse * inverse * product / 2 / n : A(0);
  sums.by_mean[item] = dmean;
  sums.by_variance[item] = dvariance;
  sums.by_both[item] = dvariance * mean;
}

template <class A>
struct Three {
  A a, b, d;
  bool cut;  // nothing after these goes further back
};
// `later` comes after `earlier` in the text.
template <class A>
__device__ Three<A> summed(const Three<A>& earlier, const Three<A>& later) {
  if (earlier.cut) return earlier;
  return {earlier.a + later.a, earlier.b + later.b, earlier.d + later.d, later.cut};
}

// A block for each group of a batch row, the newest tokens first: what rows add becomes what they
// and all rows after them add, up to where gradients stop.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kScan)
    sums_kernel(Groups<N> in, Sums<A> sums, Detach detach, const A* dafter, const A* before_tokens,
                const A* before_moments, A* dbefore, bool accumulate) {
  __shared__ Three<A> held[kScan];
  const int g = blockIdx.x, lane = threadIdx.x;
  const std::int64_t b = blockIdx.y, count = in.row_tokens(), state = (b * in.groups + g) * 2;
  Three<A> carried{0, 0, 0, false};
  const std::int64_t last = (b + 1) * count - 1;
  if (const A n = in.counts[last] * A(in.channels); dafter && n > 0) {
    const A mean = in.moments[(last * in.groups + g) * 2];
    carried = {dafter[state] / n, dafter[state + 1] / n, dafter[state + 1] / n * mean, false};
  }
  for (std::int64_t end = count; end > 0; end -= kScan) {
    const std::int64_t t = end - 1 - lane, r = b * count + t, item = r * in.groups + g;
    Three<A> mine{0, 0, 0, false};
    if (t >= 0) {
      const std::int64_t next = t + 1;
      const bool border = next < count && next % in.tokens == 0 &&
                          ((in.resets && in.resets[b * in.segments + next / in.tokens]) ||
                           detach.before(next / in.tokens));
      mine = {sums.by_mean[item], sums.by_variance[item], sums.by_both[item], border};
    }
    for (int distance = 1; distance < kScan; distance *= 2) {
      held[lane] = mine;
      __syncthreads();
      if (lane >= distance) mine = summed(mine, held[lane - distance]);
      __syncthreads();
    }
    mine = summed(mine, carried);
    if (t >= 0) {
      sums.by_mean[item] = mine.a;
      sums.by_variance[item] = mine.b;
      sums.by_both[item] = mine.d;
    }
    held[lane] = mine;
    __syncthreads();
    carried = held[min(std::int64_t{kScan}, end) - 1];
    carried.cut = false;
    __syncthreads();
  }
  if (lane > 0 || !dbefore) return;
  const bool cut = (in.resets && in.resets[b * in.segments]) || detach.before(0);
  const A weight = cut ? A(0) : before_tokens[b] * A(in.channels), mean = before_moments[state];
  const A dmean = weight * (carried.a + 2 * (mean * carried.b - carried.d)),
          dvariance = weight * carried.b;
  dbefore[state] = dmean + (accumulate ? dbefore[state] : A(0));
  dbefore[state + 1] = dvariance + (accumulate ? dbefore[state + 1] : A(0));
}

// A thread for each number.
template <class N, class A = Compute<N>>
__global__ void input_grad_kernel(Groups<N> in, const N* dy, Sums<A> sums, N* dx, bool accumulate) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= in.rows * in.width) return;
  const std::int64_t r = i / in.width, c = i % in.width;
  const int g = static_cast<int>(c / in.channels);
  const std::int64_t item = r * in.groups + g;
  A value = dy ? A(dy[i]) * in.weight[c] * in.inverse(r, g) : A(0);
  if (in.counts_row(r))
    value += sums.by_mean[item] + 2 * (A(in.x[i]) * sums.by_variance[item] - sums.by_both[item]);
  dx[i] = N(value + (accumulate ? A(dx[i]) : A(0)));
}

// A thread for each channel of kRows rows: parts [P, 2, C] of the gradients of weight and bias.
template <class N, class A = Compute<N>>
__global__ void parameter_parts_kernel(Groups<N> in, const N* dy, A* parts) {
  const std::int64_t c = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= in.width) return;
  const int g = static_cast<int>(c / in.channels);
  const std::int64_t begin = blockIdx.y * kRows, end = min(begin + kRows, in.rows);
  A dweight = 0, dbias = 0;
  for (std::int64_t r = begin; r < end; ++r) {
    const A upstream = A(dy[r * in.width + c]);
    dweight += upstream * (A(in.x[r * in.width + c]) - in.moments[(r * in.groups + g) * 2]) *
               in.inverse(r, g);
    dbias += upstream;
  }
  A* to = parts + blockIdx.y * 2 * in.width + c;
  to[0] = dweight;
  to[in.width] = dbias;
}

// A thread for each channel: the parts in their order.
template <class A>
__global__ void parameter_grad_kernel(const A* parts, std::int64_t count, std::int64_t width,
                                      A* target, bool accumulate) {
  const std::int64_t c = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= width) return;
  A sum = accumulate ? target[c] : A(0);
  for (std::int64_t p = 0; p < count; ++p) sum += parts[p * 2 * width + c];
  target[c] = sum;
}

dim3 grid(std::int64_t x, std::int64_t y) {
  return {static_cast<unsigned>(x), static_cast<unsigned>(y)};
}

class CudaTimestepNorm final : public TimestepNormKernels {
 public:
  void norm(const Norm& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() {
      using N = Native<T>;
      using A = Compute<N>;
      const Groups<N> in = groups_of<T>(args);
      launch("timestep_norm", own_moments_kernel<N>, blocks_for(in.rows * in.groups * 32, kThreads),
             kThreads, 0, in);
      launch("timestep_norm", count_kernel<N>, grid(args.groups, args.layout.batch), kScan, 0, in,
             args.before.tokens.data<A>(), args.before.moments.data<A>(),
             args.after.tokens.data<A>(), args.after.moments.data<A>());
      launch("timestep_norm", normalise_kernel<N>, blocks_for(args.x.size(), kThreads), kThreads, 0,
             in, native<T>(args.y));
    });
  }

  void norm_grad(const NormGrad& args) const override {
    dispatch_float(args.forward.x.dtype(), [&]<class T>() {
      using N = Native<T>;
      using A = Compute<N>;
      const Norm& given = args.forward;
      const Groups<N> in = groups_of<T>(given);
      const N* dy = native<T>(args.dy);
      if (args.dx || args.dbefore) {
        const Tensor all = sums_of(given);
        A* first = all.data<A>();
        const std::int64_t each = all.size() / 3;
        const Sums<A> sums{first, first + each, first + 2 * each};
        launch("timestep_norm_grad", own_sums_kernel<N>,
               blocks_for(in.rows * in.groups * 32, kThreads), kThreads, 0, in, dy, sums);
        launch("timestep_norm_grad", sums_kernel<N>, grid(given.groups, given.layout.batch), kScan,
               0, in, sums, detach_bits(args.detach), args.dafter ? args.dafter.data<A>() : nullptr,
               given.before.tokens.data<A>(), given.before.moments.data<A>(),
               args.dbefore ? args.dbefore.tensor.data<A>() : nullptr, args.dbefore.accumulate);
        if (args.dx)
          launch("timestep_norm_grad", input_grad_kernel<N>, blocks_for(given.x.size(), kThreads),
                 kThreads, 0, in, dy, sums, native<T>(args.dx.tensor), args.dx.accumulate);
      }
      parameters<T>(args, in, dy);
    });
  }

 private:
  // Not in a template: there nvcc 13 mistakes the braces of a shape.
  static Tensor sums_of(const Norm& args) {
    return Tensor::empty({3, args.x.shape()[0], args.groups}, args.weight.dtype(), Device::kCuda);
  }
  static Tensor parts_of(const Norm& args, std::int64_t count) {
    return Tensor::empty({count, 2, args.x.shape()[1]}, args.weight.dtype(), Device::kCuda);
  }
  template <class T, class N = Native<T>>
  static void parameters(const NormGrad& args, const Groups<N>& in, const N* dy) {
    using A = Compute<N>;
    const std::int64_t count = dy ? (in.rows + kRows - 1) / kRows : 0;
    const Tensor parts = parts_of(args.forward, count);
    if (count > 0)
      launch("timestep_norm_grad", parameter_parts_kernel<N>,
             grid((in.width + kThreads - 1) / kThreads, count), kThreads, 0, in, dy,
             parts.data<A>());
    const auto add = [&](const GradTarget& target, std::int64_t first) {
      if (target)
        launch("timestep_norm_grad", parameter_grad_kernel<A>, blocks_for(in.width, kThreads),
               kThreads, 0, parts.data<A>() + first, count, in.width, target.tensor.data<A>(),
               target.accumulate);
    };
    add(args.dweight, 0);
    add(args.dbias, in.width);
  }
};

}  // namespace

const TimestepNormKernels& cuda_timestep_norm() {
  static const CudaTimestepNorm kernels;
  return kernels;
}

}  // namespace infini
