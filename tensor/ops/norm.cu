#include <algorithm>

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/norm.h"

namespace infini {
namespace {

constexpr int kThreads = 256;  // of blocks that take one row of any width, or partial sums
constexpr int kPacks = 4;      // of a row in the registers of a thread
constexpr int kGradPacks = 2;  // and of the rows on their way there
constexpr int kMostLanes = 1024, kMostGradLanes = 512;

// In the kernels that hold rows in registers, blockDim.x threads (whole warps) share a row, thread
// t of them packs t, t + blockDim.x, ..., and blockDim.y rows share a block.
dim3 row_block(std::int64_t width, int pack, int packs, int threads) {
  const auto lanes =
      static_cast<unsigned>((width + 32 * pack * packs - 1) / (32 * pack * packs)) * 32;
  return {lanes, std::max(1u, threads / lanes)};
}

// The column at which such a thread's pack p begins.
template <int n>
__device__ __forceinline__ int row_column(int p) {
  return static_cast<int>(threadIdx.x + p * blockDim.x) * n;
}

// The sum over the threads that share a row, in all of them. `sums` has room for each warp of the
// block, and no call before the last one used the same room. Every thread of a block must call it.
template <class A>
__device__ __forceinline__ A row_sum(A value, A* sums) {
  value = warp_sum(value);
  if (blockDim.x == 32) return value;
  const int warps = blockDim.x / 32, first = threadIdx.y * warps;
  if (threadIdx.x % 32 == 0) sums[first + threadIdx.x / 32] = value;
  __syncthreads();
  value = 0;
  for (int warp = 0; warp < warps; ++warp) value += sums[first + warp];
  return value;
}

template <class N>
struct Forward {
  const N* x;
  const Compute<N>* weight;
  Compute<N> eps;
  N* y;
  Compute<N>* inv_rms;
  std::int64_t rows, width;
};

// Rows in registers: x is read once.
template <int n, class N>
__global__ void __launch_bounds__(kMostLanes) rms_norm_kernel(const Forward<N> args) {
  using A = Compute<N>;
  __shared__ A sums[32];
  const std::int64_t r = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const int end = r < args.rows ? static_cast<int>(args.width) : 0;
  const std::int64_t begin = r * args.width;

  Held<n, N> xs[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (const int c = row_column<n>(p); c < end) xs[p] = hold<n>(args.x + begin + c);
  A squares = 0;
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (row_column<n>(p) < end)
#pragma unroll
      for (int e = 0; e < n; ++e) squares += xs[p][e] * xs[p][e];
  const A inv = A(1) / sqrt(row_sum(squares, sums) / A(args.width) + args.eps);
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (const int c = row_column<n>(p); c < end) {
      A weight[n], results[n];
      load_pack<n>(args.weight + c, weight);
#pragma unroll
      for (int e = 0; e < n; ++e) results[e] = xs[p][e] * inv * weight[e];
      store_pack<n>(args.y + begin + c, results);
    }
  if (threadIdx.x == 0 && end > 0) args.inv_rms[r] = inv;
}

// Rows of any width, one block each.
template <class N>
__global__ void __launch_bounds__(kThreads) rms_norm_any_kernel(const Forward<N> args) {
  using A = Compute<N>;
  const std::int64_t begin = blockIdx.x * args.width, end = begin + args.width;
  A squares = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kThreads)
    squares += A(args.x[i]) * A(args.x[i]);
  const A inv = A(1) / sqrt(block_sum<kThreads>(squares) / A(args.width) + args.eps);
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kThreads)
    args.y[i] = N(A(args.x[i]) * inv * args.weight[i - begin]);
  if (threadIdx.x == 0) args.inv_rms[blockIdx.x] = inv;
}

template <class N>
struct Backward {
  const N *x, *dy;
  const Compute<N>*weight, *inv_rms;
  const N* stood;  // either may be null
  N* dx;
  Compute<N>* partial;  // [pieces, C]: sums of dy * n over some rows each
  std::int64_t rows, width;
};

template <int n, class N>
struct GradRow {
  Held<n, N> x[kGradPacks], dy[kGradPacks], stood[kGradPacks];
  Compute<N> inv;
};

// With n = x / rms and g = dy * weight:
//   dx = (g - n mean(g n)) / rms + what stood there,  dweight = sum_r dy n.
// As many blocks as the device holds go over the rows, the next `ahead` rows on their way while one
// is worked on. Weight and partial sums of dweight stay in registers; at the end the rows of a
// block are added in order to one piece.
template <int n, bool stood, class N>
__global__ void __launch_bounds__(kMostGradLanes) rms_norm_grad_kernel(const Backward<N> args) {
  using A = Compute<N>;
  // Two rows of x and dy are as many bytes as the memory wants asked for; with a third tensor, one.
  constexpr int ahead = stood ? 1 : 2;
  __shared__ A sums[2][kMostGradLanes / 32];
  __shared__ A combined[kThreads / 2 * kGradPacks * n];  // several rows have half a block at most
  const int width = static_cast<int>(args.width);
  A weight[kGradPacks][n] = {}, dweight[kGradPacks][n] = {};
#pragma unroll
  for (int p = 0; p < kGradPacks; ++p)
    if (row_column<n>(p) < width) load_pack<n>(args.weight + row_column<n>(p), weight[p]);

  const auto load = [&](std::int64_t r) {
    GradRow<n, N> row{};
    if (r >= args.rows) return row;
    row.inv = args.inv_rms[r];
#pragma unroll
    for (int p = 0; p < kGradPacks; ++p)
      if (const int c = row_column<n>(p); c < width) {
        const std::int64_t i = r * args.width + c;
        row.x[p] = hold<n>(args.x + i);
        row.dy[p] = hold<n>(args.dy + i);
        if constexpr (stood) row.stood[p] = hold<n>(args.stood + i);
      }
    return row;
  };
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.y;
  std::int64_t first = std::int64_t{blockIdx.x} * blockDim.y;  // the same in the whole block
  GradRow<n, N> next[ahead];
#pragma unroll
  for (int k = 0; k < ahead; ++k) next[k] = load(first + threadIdx.y + k * stride);
  for (int turn = 0; first < args.rows; first += stride, turn ^= 1) {
    const std::int64_t r = first + threadIdx.y;
    const GradRow<n, N> row = next[0];
#pragma unroll
    for (int k = 0; k + 1 < ahead; ++k) next[k] = next[k + 1];
    next[ahead - 1] = load(r + ahead * stride);
    A dot = 0;
#pragma unroll
    for (int p = 0; p < kGradPacks; ++p)
#pragma unroll
      for (int e = 0; e < n; ++e) dot += row.dy[p][e] * weight[p][e] * row.x[p][e];
    const A shrink = row_sum(dot, sums[turn]) * row.inv * row.inv / A(args.width);
#pragma unroll
    for (int p = 0; p < kGradPacks; ++p) {
      A results[n];
#pragma unroll
      for (int e = 0; e < n; ++e) {
        const A x = row.x[p][e], dy = row.dy[p][e];
        results[e] = row.inv * (dy * weight[p][e] - x * shrink) + row.stood[p][e];
        dweight[p][e] += dy * x * row.inv;
      }
      if (const int c = row_column<n>(p); args.dx && c < width && r < args.rows)
        store_pack<n>(args.dx + r * args.width + c, results);
    }
  }
  for (unsigned y = 0; y < blockDim.y; ++y) {
    if (y > 0) __syncthreads();
    if (y != threadIdx.y) continue;
#pragma unroll
    for (int p = 0; p < kGradPacks; ++p)
      if (const int c = row_column<n>(p); c < width) {
        A* const to =
            y + 1 < blockDim.y ? combined + c : args.partial + blockIdx.x * args.width + c;
#pragma unroll
        for (int e = 0; e < n; ++e) to[e] = dweight[p][e] + (y > 0 ? combined[c + e] : A(0));
      }
  }
}

// dx of rows of any width, one block each.
template <class N>
__global__ void __launch_bounds__(kThreads) rms_norm_grad_any_kernel(const Backward<N> args) {
  using A = Compute<N>;
  const std::int64_t begin = blockIdx.x * args.width, end = begin + args.width;
  const A inv = args.inv_rms[blockIdx.x];
  A dot = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kThreads)
    dot += A(args.dy[i]) * args.weight[i - begin] * A(args.x[i]);
  const A shrink = block_sum<kThreads>(dot) * inv * inv / A(args.width);
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const A result = inv * (A(args.dy[i]) * args.weight[i - begin] - A(args.x[i]) * shrink);
    if (args.dx) args.dx[i] = N(result + (args.stood ? A(args.stood[i]) : A(0)));
  }
}

constexpr int kSlices = 8;  // threads that share the sum of a column

// The sum over a column's slices (threadIdx.y), in order, in those of slice 0.
template <int slices, class A>
__device__ __forceinline__ A column_sum(A value) {
  __shared__ A sums[slices][32];
  sums[threadIdx.y][threadIdx.x] = value;
  __syncthreads();
  value = 0;
  if (threadIdx.y == 0)
    for (int slice = 0; slice < slices; ++slice) value += sums[slice][threadIdx.x];
  return value;
}

// Sums of dy * n for any width: a block takes 32 columns of every gridDim.x * kSlices-th row.
template <class N>
__global__ void __launch_bounds__(32 * kSlices) dweight_any_kernel(const Backward<N> args) {
  using A = Compute<N>;
  const std::int64_t c = std::int64_t{blockIdx.y} * 32 + threadIdx.x;
  A sum = 0;
  if (c < args.width)
    for (std::int64_t r = std::int64_t{blockIdx.x} * kSlices + threadIdx.y; r < args.rows;
         r += gridDim.x * kSlices)
      sum += A(args.dy[r * args.width + c]) * A(args.x[r * args.width + c]) * args.inv_rms[r];
  sum = column_sum<kSlices>(sum);
  if (threadIdx.y == 0 && c < args.width) args.partial[blockIdx.x * args.width + c] = sum;
}

// dweight (+)= the sum of the pieces. A block takes 32 columns; of each, 32 threads every 32nd
// piece.
template <class A>
__global__ void __launch_bounds__(1024)
    dweight_kernel(const A* partial, std::int64_t pieces, std::int64_t width, bool accumulate,
                   A* dweight) {
  const std::int64_t c = std::int64_t{blockIdx.x} * 32 + threadIdx.x;
  A sum = 0;
  if (c < width)
    for (std::int64_t piece = threadIdx.y; piece < pieces; piece += 32)
      sum += partial[piece * width + c];
  sum = column_sum<32>(sum);
  if (threadIdx.y == 0 && c < width) dweight[c] = accumulate ? dweight[c] + sum : sum;
}

template <class T>
void forward(const NormKernels::RmsNorm& args) {
  using N = Native<T>;
  constexpr int n = kPackSize<N>;
  const auto [rows, width] = args.x.rows_and_width();
  if (rows == 0) return;
  const Forward<N> plain{.x = native<T>(args.x),
                         .weight = args.weight.data<Compute<N>>(),
                         .eps = static_cast<Compute<N>>(args.eps),
                         .y = native<T>(args.y),
                         .inv_rms = args.inv_rms.data<Compute<N>>(),
                         .rows = rows,
                         .width = width};
  const bool packed = width % n == 0 && width <= kMostLanes * kPacks * n &&
                      takes_packs<n>(plain.x, plain.y) && takes_packs<n>(plain.weight);
  if (packed) {
    const dim3 block = row_block(width, n, kPacks, 128);
    rms_norm_kernel<n><<<blocks_for(rows, block.y), block, 0, cuda_stream()>>>(plain);
  } else {
    rms_norm_any_kernel<<<blocks_for(rows, 1), kThreads, 0, cuda_stream()>>>(plain);
  }
  check_launch("rms_norm");
}

// Blocks of the kernel that the device holds at a time.
template <class Kernel>
std::int64_t blocks_at_a_time(Kernel kernel, dim3 block) {
  int each = 0;
  cuda_check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel,
                                                           static_cast<int>(block.x * block.y), 0),
             "rms_norm_grad");
  return std::int64_t{std::max(each, 1)} * multiprocessor_count();
}

template <class T>
void backward(const NormKernels::RmsNormGrad& args) {
  using N = Native<T>;
  using A = Compute<N>;
  constexpr int n = kPackSize<N>;
  const auto [rows, width] = args.x.rows_and_width();
  if (width == 0) return;
  Backward<N> plain{.x = native<T>(args.x),
                    .dy = native<T>(args.dy),
                    .weight = args.weight.data<A>(),
                    .inv_rms = args.inv_rms.data<A>(),
                    .stood = native<T>(args.dx.stood),
                    .dx = native<T>(args.dx.sum),
                    .partial = nullptr,
                    .rows = rows,
                    .width = width};
  const bool packed = width % n == 0 && width <= kMostGradLanes * kGradPacks * n &&
                      takes_packs<n>(plain.x, plain.dy, plain.stood, plain.dx) &&
                      takes_packs<n>(plain.weight);
  const dim3 block = packed ? row_block(width, n, kGradPacks, kThreads) : dim3(32, kSlices);
  const auto kernel =
      plain.stood ? rms_norm_grad_kernel<n, true, N> : rms_norm_grad_kernel<n, false, N>;
  const std::int64_t most = packed ? blocks_at_a_time(kernel, block) : std::int64_t{256};
  const std::int64_t pieces = std::min<std::int64_t>(most, blocks_for(rows, block.y));
  const Tensor partial = Tensor::empty({pieces, width}, dtype_of<A>(), Device::kCuda);
  plain.partial = partial.data<A>();
  if (packed && rows > 0) {
    kernel<<<blocks_for(pieces, 1), block, 0, cuda_stream()>>>(plain);
  } else if (rows > 0) {
    rms_norm_grad_any_kernel<<<blocks_for(rows, 1), kThreads, 0, cuda_stream()>>>(plain);
    const dim3 grid(blocks_for(pieces, 1), blocks_for(width, 32));
    if (args.dweight) dweight_any_kernel<<<grid, block, 0, cuda_stream()>>>(plain);
  }
  check_launch("rms_norm_grad");

  if (!args.dweight) return;
  const bool same = args.dweight.tensor.dtype() == dtype_of<A>();
  const Tensor total =
      same ? args.dweight.tensor : Tensor::empty({width}, dtype_of<A>(), Device::kCuda);
  dweight_kernel<<<blocks_for(width, 32), dim3(32, 32), 0, cuda_stream()>>>(
      plain.partial, pieces, width, same && args.dweight.accumulate, total.data<A>());
  check_launch("rms_norm_grad");
  if (!same) add_into(args.dweight, total);
}

class CudaNorm final : public NormKernels {
 public:
  void rms_norm(const RmsNorm& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() { forward<T>(args); });
  }
  void rms_norm_grad(const RmsNormGrad& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() { backward<T>(args); });
  }
};

}  // namespace

const NormKernels& cuda_norm() {
  static const CudaNorm kernels;
  return kernels;
}

}  // namespace infini
