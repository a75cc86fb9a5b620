#include <cmath>

#include "tensor/ops/column_sums.cuh"
#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/launch.cuh"
#include "tensor/ops/shared_heads.h"

namespace infini {
namespace {

constexpr int kThreads = 128;
constexpr std::int64_t kRows = 128;  // of a partial sum over rows

template <class A>
__device__ A logistic(A x) {
  return A(1) / (A(1) + exp(-x));
}
template <class A>
__device__ A silu_slope(A x) {
  const A s = logistic(x);
  return s * (1 + x * (1 - s));
}
template <class N, class A>
__device__ void put(N* to, std::int64_t at, A value, bool accumulate) {
  if (to) to[at] = N(value + (accumulate ? A(to[at]) : A(0)));
}

template <class N>
struct Heads {
  using A = Compute<N>;
  const N *z, *w;
  const A *z_bias, *query_scale, *query_shift, *key_scale, *key_shift, *value_bias;
  std::int64_t rows, width;
  int heads, head_width;

  __device__ A u(std::int64_t row, std::int64_t c) const {
    return A(z[row * width + c]) + z_bias[c];
  }
  __device__ A dunit(const N* d, std::int64_t c) const {
    return A(d[c]) * query_scale[c] + A(d[width + c]) * key_scale[c];
  }
};

template <class T, class N = Native<T>>
Heads<N> heads_of(const SharedHeadsKernels::Heads& args) {
  using A = Compute<N>;
  return {.z = native<T>(args.z),
          .w = native<T>(args.w),
          .z_bias = args.weights.z_bias.data<A>(),
          .query_scale = args.weights.query_scale.data<A>(),
          .query_shift = args.weights.query_shift.data<A>(),
          .key_scale = args.weights.key_scale.data<A>(),
          .key_shift = args.weights.key_shift.data<A>(),
          .value_bias = args.weights.value_bias.data<A>(),
          .rows = args.layout.rows(),
          .width = args.layout.query_width(),
          .heads = args.layout.heads,
          .head_width = args.layout.head_width};
}

// 1 / |u| of a head, by the warp that has it.
template <class N, class A = Compute<N>>
__device__ A inverse_length(const Heads<N>& in, std::int64_t row, std::int64_t first, int lane) {
  A square = 0;
  for (int c = lane; c < in.head_width; c += 32) {
    const A u = in.u(row, first + c);
    square += u * u;
  }
  return A(1) / sqrt(warp_sum(square) + A(kHeadLengthEps));
}

// A warp for each row and head.
template <class N>
__global__ void __launch_bounds__(kThreads) heads_kernel(Heads<N> in, N* qkv) {
  using A = Compute<N>;
  const std::int64_t item = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
  if (item >= in.rows * in.heads) return;
  const std::int64_t row = item / in.heads, first = item % in.heads * in.head_width;
  const int lane = threadIdx.x % 32;
  const A inverse = inverse_length(in, row, first, lane);
  N* out = qkv + row * 3 * in.width;
  for (std::int64_t c = first + lane; c < first + in.head_width; c += 32) {
    const A unit = in.u(row, c) * inverse, value = A(in.w[row * in.width + c]) + in.value_bias[c];
    out[c] = N(unit * in.query_scale[c] + in.query_shift[c]);
    out[in.width + c] = N(unit * in.key_scale[c] + in.key_shift[c]);
    out[2 * in.width + c] = N(value * logistic(value));
  }
}

// A warp for each row and head; what the weights need is left in scratch: 1 / |u| and u' . du'.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    heads_grad_kernel(Heads<N> in, const N* dqkv, A* scratch, N* dz, bool add_z, N* dw,
                      bool add_w) {
  const std::int64_t item = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
  if (item >= in.rows * in.heads) return;
  const std::int64_t row = item / in.heads, first = item % in.heads * in.head_width;
  const int lane = threadIdx.x % 32;
  const A inverse = inverse_length(in, row, first, lane);
  const N* d = dqkv + row * 3 * in.width;
  A along = 0;
  for (std::int64_t c = first + lane; c < first + in.head_width; c += 32)
    along += in.u(row, c) * inverse * in.dunit(d, c);
  along = warp_sum(along);
  for (std::int64_t c = first + lane; c < first + in.head_width; c += 32) {
    const std::int64_t at = row * in.width + c;
    put(dz, at, inverse * (in.dunit(d, c) - in.u(row, c) * inverse * along), add_z);
    put(dw, at, A(d[2 * in.width + c]) * silu_slope(A(in.w[at]) + in.value_bias[c]), add_w);
  }
  if (lane > 0) return;
  scratch[2 * item] = inverse;
  scratch[2 * item + 1] = along;
}

// A thread for each column of kRows rows: parts [P, 6, H K] in the order of SharedWeights.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    weight_parts_kernel(Heads<N> in, const N* dqkv, const A* scratch, A* parts) {
  const std::int64_t c = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= in.width) return;
  const std::int64_t begin = blockIdx.y * kRows, end = min(begin + kRows, in.rows);
  A sums[6] = {};
  for (std::int64_t row = begin; row < end; ++row) {
    const N* d = dqkv + row * 3 * in.width;
    const A* held = scratch + 2 * (row * in.heads + c / in.head_width);
    const A unit = in.u(row, c) * held[0], dq = A(d[c]), dk = A(d[in.width + c]);
    sums[0] += held[0] * (in.dunit(d, c) - unit * held[1]);
    sums[1] += dq * unit;
    sums[2] += dq;
    sums[3] += dk * unit;
    sums[4] += dk;
    sums[5] += A(d[2 * in.width + c]) * silu_slope(A(in.w[row * in.width + c]) + in.value_bias[c]);
  }
  for (int i = 0; i < 6; ++i) parts[(blockIdx.y * 6 + i) * in.width + c] = sums[i];
}

// A thread for each number.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    gate_kernel(const N* gate, const A* bias, const N* x, std::int64_t width, std::int64_t count,
                N* y) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const A opened = A(gate[i]) + bias[i % width];
  y[i] = N(opened * logistic(opened) * A(x[i]));
}

// A thread for each column of kRows rows: parts [P, C] of the gradient of the bias.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    gate_grad_kernel(const N* gate, const A* bias, const N* x, const N* dy, std::int64_t rows,
                     std::int64_t width, A* parts, N* dgate, bool add_gate, N* dx, bool add_x) {
  const std::int64_t c = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= width) return;
  const std::int64_t begin = blockIdx.y * kRows, end = min(begin + kRows, rows);
  A sum = 0;
  for (std::int64_t i = begin * width + c; i < end * width; i += width) {
    const A opened = A(gate[i]) + bias[c], upstream = A(dy[i]),
            d = upstream * A(x[i]) * silu_slope(opened);
    sum += d;
    put(dgate, i, d, add_gate);
    put(dx, i, upstream * opened * logistic(opened), add_x);
  }
  parts[blockIdx.y * width + c] = sum;
}

std::int64_t parts_of(std::int64_t rows) { return (rows + kRows - 1) / kRows; }
dim3 part_grid(std::int64_t rows, std::int64_t width) {
  return {blocks_for(width, kThreads), static_cast<unsigned>(parts_of(rows))};
}

// Room for sums, in the accumulator of the type of dy.
Tensor room(const Shape& shape, const Tensor& dy) {
  return Tensor::empty(shape, accumulator_of(dy.dtype()), Device::kCuda);
}

// Adds the parts [P, n, C] of sum `index`.
template <class A>
void sum_parts(const Tensor& parts, int index, const GradTarget& target) {
  if (!target) return;
  const auto [count, sums, width] = parts.dims<3>();
  add_column_sums<A>("sum_parts", parts.reshape({count, sums * width}), index * width, target);
}

class CudaSharedHeads final : public SharedHeadsKernels {
 public:
  void heads(const Heads& args) const override {
    dispatch_float(args.z.dtype(), [&]<class T>() {
      const auto in = heads_of<T>(args);
      launch("shared_heads", heads_kernel<Native<T>>, blocks_for(in.rows * in.heads * 32, kThreads),
             kThreads, 0, in, native<T>(args.qkv));
    });
  }

  void heads_grad(const HeadsGrad& args) const override {
    dispatch_float(args.dqkv.dtype(), [&]<class T>() {
      using N = Native<T>;
      using A = Compute<N>;
      const auto in = heads_of<T>(args.forward);
      const N* dqkv = native<T>(args.dqkv);
      const HeadLayout& layout = args.forward.layout;
      const Tensor scratch = room({layout.rows() * layout.heads, 2}, args.dqkv),
                   parts = room({parts_of(layout.rows()), 6, layout.query_width()}, args.dqkv);
      launch("shared_heads_grad", heads_grad_kernel<N>,
             blocks_for(in.rows * in.heads * 32, kThreads), kThreads, 0, in, dqkv,
             scratch.data<A>(), native<T>(args.dz.tensor), args.dz.accumulate,
             native<T>(args.dw.tensor), args.dw.accumulate);
      launch("shared_heads_grad", weight_parts_kernel<N>, part_grid(in.rows, in.width), kThreads, 0,
             in, dqkv, scratch.data<A>(), parts.data<A>());
      int index = 0;
      for (const GradTarget* target : {&args.dz_bias, &args.dquery_scale, &args.dquery_shift,
                                       &args.dkey_scale, &args.dkey_shift, &args.dvalue_bias})
        sum_parts<A>(parts, index++, *target);
    });
  }

  void gate(const Gate& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() {
      using N = Native<T>;
      launch("gated_heads", gate_kernel<N>, blocks_for(args.x.size(), kThreads), kThreads, 0,
             native<T>(args.gate), args.bias.data<Compute<N>>(), native<T>(args.x),
             args.x.shape()[1], args.x.size(), native<T>(args.y));
    });
  }

  void gate_grad(const GateGrad& args) const override {
    dispatch_float(args.dy.dtype(), [&]<class T>() {
      using N = Native<T>;
      using A = Compute<N>;
      const std::int64_t rows = args.dy.shape()[0], width = args.dy.shape()[1];
      const Tensor parts =
          Tensor::empty({parts_of(rows), 1, width}, accumulator_of(args.dy.dtype()), Device::kCuda);
      launch("gated_heads_grad", gate_grad_kernel<N>, part_grid(rows, width), kThreads, 0,
             native<T>(args.forward.gate), args.forward.bias.data<A>(), native<T>(args.forward.x),
             native<T>(args.dy), rows, width, parts.data<A>(), native<T>(args.dgate.tensor),
             args.dgate.accumulate, native<T>(args.dx.tensor), args.dx.accumulate);
      sum_parts<A>(parts, 0, args.dbias);
    });
  }
};

}  // namespace

const SharedHeadsKernels& cuda_shared_heads() {
  static const CudaSharedHeads kernels;
  return kernels;
}

}  // namespace infini
