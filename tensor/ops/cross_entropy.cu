#include <algorithm>
#include <limits>
#include <type_traits>

#include "tensor/ops/cross_entropy.h"
#include "tensor/ops/cuda_math.cuh"

namespace infini {
namespace {

constexpr int kThreads = 512;

// Packs of a thread in flight: as many as its registers hold.
template <class L>
constexpr int kInFlight = std::is_same_v<L, double> ? 4 : 8;

// Blocks to a multiprocessor: one reads while another writes.
template <class L>
constexpr int kBlocks = std::is_same_v<L, double> ? 1 : 2;

__device__ __forceinline__ float exp_of(float x) { return exp_approx(x); }
__device__ __forceinline__ double exp_of(double x) { return exp(x); }

extern __shared__ __align__(16) unsigned char shared_bytes[];

template <class L, class D>
struct Rows {
  const L* logits;
  std::int64_t width;
  const std::int32_t* targets;
  const float* weights;  // may be null
  double scale;
  Compute<L>* nll;
  D* dlogits;  // may be null, or the logits
  int kept;    // packs of a row that shared memory keeps
};

// A thread's part of a row: the largest logit, and the sum of exp(logit - highest). A pack is kept
// in shared memory by the thread that reads it again.
template <int n, class L>
__device__ __forceinline__ void read_row(const L* row, int packs, int kept, Compute<L>& highest,
                                         Compute<L>& sum) {
  using A = Compute<L>;
  auto* const keep = reinterpret_cast<Held<n, L>*>(shared_bytes);
  for (int first = threadIdx.x; first < packs; first += kThreads * kInFlight<L>) {
    Held<n, L> part[kInFlight<L>];
    A above = highest;
#pragma unroll
    for (int k = 0; k < kInFlight<L>; ++k)
      if (const int p = first + k * kThreads; p < packs)
        part[k] = hold<n>(row + std::int64_t{p} * n);
#pragma unroll
    for (int k = 0; k < kInFlight<L>; ++k)
      if (const int p = first + k * kThreads; p < packs) {
        if (p < kept) keep[p] = part[k];
#pragma unroll
        for (int e = 0; e < n; ++e) {
          const A logit = part[k][e];
          above = logit > above ? logit : above;
        }
      }
    sum *= exp_of(highest - above);
    highest = above;
#pragma unroll
    for (int k = 0; k < kInFlight<L>; ++k)
      if (first + k * kThreads < packs) {
        A terms = 0;
#pragma unroll
        for (int e = 0; e < n; ++e) terms += exp_of(part[k][e] - highest);
        sum += terms;
      }
  }
}

template <int n, class D>
__device__ __forceinline__ void write_zeros(D* drow, int packs) {
  const Compute<D> zeros[n] = {};
  for (int p = threadIdx.x; p < packs; p += kThreads)
    store_pack<n>(drow + std::int64_t{p} * n, zeros);
}

// Of a row: its highest logit, the sum of exponentials relative to that, the logit of the target.
template <class A>
struct Softmax {
  A highest, sum, chosen;
};

// factor (softmax - 1 at the target); logits_of(p) is a pack of the row. The target may be a column
// that is not here.
template <int n, class A, class D, class Logits>
__device__ __forceinline__ void write_gradient(D* drow, int packs, std::int64_t target,
                                               const Softmax<A>& softmax, A factor,
                                               Logits logits_of) {
  const A share = factor / softmax.sum;
#pragma unroll 4
  for (int p = threadIdx.x; p < packs; p += kThreads) {
    const auto logits = logits_of(p);
    Compute<D> results[n];
#pragma unroll
    for (int e = 0; e < n; ++e)
      results[e] = static_cast<Compute<D>>(exp_of(logits[e] - softmax.highest) * share);
    store_pack<n>(drow + std::int64_t{p} * n, results);
  }
  // By the thread that wrote the softmax there.
  if (target >= 0 && target < std::int64_t{packs} * n && threadIdx.x == target / n % kThreads)
    drow[target] =
        D(static_cast<Compute<D>>(exp_of(softmax.chosen - softmax.highest) * share - factor));
}

// One block per row. The row is read once, with maximum and sum adjusted on the way; for the
// gradient it is read again from shared memory, from global memory where it is too long.
template <int n, class L, class D>
__global__ void __launch_bounds__(kThreads, kBlocks<L>) chunk_kernel(const Rows<L, D> args) {
  using A = Compute<L>;
  const std::int64_t begin = blockIdx.x * args.width;
  const int packs = static_cast<int>(args.width / n);
  const L* const row = args.logits + begin;
  D* const drow = args.dlogits ? args.dlogits + begin : nullptr;
  const std::int32_t target = args.targets[blockIdx.x];
  if (target < 0) {
    if (threadIdx.x == 0) args.nll[blockIdx.x] = 0;
    if (drow) write_zeros<n>(drow, packs);
    return;
  }
  const A chosen = A(row[target]);  // before anyone writes there
  // Finite, so that a thread that sees nothing but -infinity adds 0 instead of NaN.
  A highest = std::numeric_limits<A>::lowest(), sum = 0;
  read_row<n>(row, packs, args.kept, highest, sum);
  const A whole = block_max<kThreads>(highest);
  sum = block_sum<kThreads>(sum * exp_of(highest - whole));
  if (threadIdx.x == 0) args.nll[blockIdx.x] = whole - chosen + log(sum);
  if (!drow) return;

  const auto factor = static_cast<A>(args.scale * (args.weights ? args.weights[blockIdx.x] : 1.0f));
  const auto* const keep = reinterpret_cast<const Held<n, L>*>(shared_bytes);
  write_gradient<n>(drow, packs, target, Softmax<A>{whole, sum, chosen}, factor, [&](int p) {
    return p < args.kept ? keep[p] : hold<n>(row + std::int64_t{p} * n);
  });
}

// Of one process's columns of rows: what each row comes to there, sums [3, rows].
template <class L>
struct RowSums {
  const L* logits;
  std::int64_t width, first, rows;
  const std::int32_t* targets;
  Compute<L>* sums;
};

// One block per row.
template <int n, class L>
__global__ void __launch_bounds__(kThreads, kBlocks<L>) sums_kernel(const RowSums<L> args) {
  using A = Compute<L>;
  const std::int64_t r = blockIdx.x;
  const L* const row = args.logits + r * args.width;
  A highest = std::numeric_limits<A>::lowest(), sum = 0;
  read_row<n>(row, static_cast<int>(args.width / n), 0, highest, sum);
  const A whole = block_max<kThreads>(highest);
  sum = block_sum<kThreads>(sum * exp_of(highest - whole));
  if (threadIdx.x != 0) return;
  const std::int64_t target = args.targets[r] - args.first;
  const bool here = args.targets[r] >= 0 && target >= 0 && target < args.width;
  args.sums[r] = whole;
  args.sums[args.rows + r] = sum;
  args.sums[2 * args.rows + r] = here ? A(row[target]) : A(0);
}

// The same rows with the sums [P, 3, rows] of all processes.
template <class L, class D>
struct RestRows {
  Rows<L, D> rows;
  std::int64_t first, count;
  const Compute<L>* sums;
  int processes;
};

// One block per row; every thread adds up what the processes found, in their order.
template <int n, class L, class D>
__global__ void __launch_bounds__(kThreads, kBlocks<L>) rest_kernel(const RestRows<L, D> args) {
  using A = Compute<L>;
  const Rows<L, D>& rows = args.rows;
  const std::int64_t r = blockIdx.x;
  const int packs = static_cast<int>(rows.width / n);
  const L* const row = rows.logits + r * rows.width;
  D* const drow = rows.dlogits ? rows.dlogits + r * rows.width : nullptr;
  if (rows.targets[r] < 0) {
    if (threadIdx.x == 0) rows.nll[r] = 0;
    if (drow) write_zeros<n>(drow, packs);
    return;
  }
  const auto part = [&](int process, int which) {
    return args.sums[(std::int64_t{3} * process + which) * args.count + r];
  };
  A whole = part(0, 0), sum = 0, chosen = 0;
  for (int p = 1; p < args.processes; ++p) whole = part(p, 0) > whole ? part(p, 0) : whole;
  for (int p = 0; p < args.processes; ++p) {
    sum += part(p, 1) * exp_of(part(p, 0) - whole);
    chosen += part(p, 2);
  }
  if (threadIdx.x == 0) rows.nll[r] = whole - chosen + log(sum);
  if (!drow) return;

  const auto factor = static_cast<A>(rows.scale * (rows.weights ? rows.weights[r] : 1.0f));
  // `chosen` is this process's logit where the target is one of its columns.
  write_gradient<n>(drow, packs, rows.targets[r] - args.first, Softmax<A>{whole, sum, chosen},
                    factor, [&](int p) { return hold<n>(row + std::int64_t{p} * n); });
}

// Dynamic shared memory that a block can have beside what its sums take.
int most_shared_bytes() {
  static const int bytes = [] {
    int device = 0, found = 0;
    cuda_check(cudaGetDevice(&device), "cudaGetDevice");
    cuda_check(cudaDeviceGetAttribute(&found, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
               "cudaDeviceGetAttribute");
    return found - 1024;
  }();
  return bytes;
}

template <int n, class L, class D>
void launch_packs(Rows<L, D> rows, std::int64_t count) {
  constexpr int kBytes = sizeof(Held<n, L>);
  [[maybe_unused]] static const bool raised = [] {
    cuda_check(
        cudaFuncSetAttribute(chunk_kernel<n, L, D>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             most_shared_bytes()),
        "cross_entropy");
    return true;
  }();
  rows.kept =
      rows.dlogits
          ? static_cast<int>(std::min<std::int64_t>(rows.width / n, most_shared_bytes() / kBytes))
          : 0;
  chunk_kernel<n><<<blocks_for(count, 1), kThreads, rows.kept * kBytes, cuda_stream()>>>(rows);
  check_launch("cross_entropy");
}

// L is the type of the logits, D that of their gradient.
template <class L, class D>
Rows<Native<L>, Native<D>> rows_of(const CrossEntropyKernels::Chunk& args) {
  return {.logits = native<L>(args.logits),
          .width = args.logits.shape()[1],
          .targets = args.targets.data<std::int32_t>(),
          .weights = args.weights ? args.weights.data<float>() : nullptr,
          .scale = args.scale,
          .nll = args.nll.data<Compute<Native<L>>>(),
          .dlogits = native<D>(args.dlogits),
          .kept = 0};
}

template <class L, class D>
void launch_rows(const CrossEntropyKernels::Chunk& args) {
  using N = Native<L>;
  const auto [count, width] = args.logits.dims<2>();
  if (count == 0) return;
  const Rows<N, Native<D>> rows = rows_of<L, D>(args);
  constexpr int n = kPackSize<N>;
  if (width % n == 0 && takes_packs<n>(rows.logits) && takes_packs<n>(rows.dlogits))
    launch_packs<n>(rows, count);
  else
    launch_packs<1>(rows, count);
}

template <class L>
void launch_sums(const CrossEntropyKernels::ChunkSums& args) {
  using N = Native<L>;
  const auto [count, width] = args.logits.dims<2>();
  if (count == 0) return;
  const RowSums<N> rows{.logits = native<L>(args.logits),
                        .width = width,
                        .first = args.first,
                        .rows = count,
                        .targets = args.targets.data<std::int32_t>(),
                        .sums = args.sums.data<Compute<N>>()};
  constexpr int n = kPackSize<N>;
  const unsigned blocks = blocks_for(count, 1);
  if (width % n == 0 && takes_packs<n>(rows.logits))
    sums_kernel<n><<<blocks, kThreads, 0, cuda_stream()>>>(rows);
  else
    sums_kernel<1><<<blocks, kThreads, 0, cuda_stream()>>>(rows);
  check_launch("cross_entropy sums");
}

template <class L, class D>
void launch_rest(const CrossEntropyKernels::ChunkRest& args) {
  using N = Native<L>;
  const auto [count, width] = args.chunk.logits.dims<2>();
  if (count == 0) return;
  const RestRows<N, Native<D>> rest{.rows = rows_of<L, D>(args.chunk),
                                    .first = args.first,
                                    .count = count,
                                    .sums = args.sums.data<Compute<N>>(),
                                    .processes = static_cast<int>(args.sums.shape()[0])};
  constexpr int n = kPackSize<N>;
  const unsigned blocks = blocks_for(count, 1);
  if (width % n == 0 && takes_packs<n>(rest.rows.logits) && takes_packs<n>(rest.rows.dlogits))
    rest_kernel<n><<<blocks, kThreads, 0, cuda_stream()>>>(rest);
  else
    rest_kernel<1><<<blocks, kThreads, 0, cuda_stream()>>>(rest);
  check_launch("cross_entropy rest");
}

constexpr int kLossThreads = 256;
constexpr std::int64_t kLossPiece = 16 * kLossThreads;

// Each block sums kLossPiece rows in fp64: thread t rows t, t + kLossThreads, ... of them.
template <class A>
__global__ void __launch_bounds__(kLossThreads)
    loss_pieces_kernel(const A* nll, const float* weights, std::int64_t rows, double* pieces) {
  const std::int64_t begin = blockIdx.x * kLossPiece;
  double sum = 0;
#pragma unroll 4
  for (int i = threadIdx.x; i < kLossPiece; i += kLossThreads)
    if (const std::int64_t r = begin + i; r < rows)
      sum += static_cast<double>(nll[r]) * (weights ? weights[r] : 1.0f);
  sum = block_sum<kLossThreads>(sum);
  if (threadIdx.x == 0) pieces[blockIdx.x] = sum;
}

// One block adds the pieces, thread t those at t, t + kLossThreads, ...
template <class A>
__global__ void __launch_bounds__(kLossThreads)
    loss_kernel(const double* pieces, unsigned count, double scale, A* loss) {
  double sum = 0;
  for (unsigned i = threadIdx.x; i < count; i += kLossThreads) sum += pieces[i];
  sum = block_sum<kLossThreads>(sum);
  if (threadIdx.x == 0) *loss = static_cast<A>(scale * sum);
}

class CudaCrossEntropy final : public CrossEntropyKernels {
 public:
  void chunk(const Chunk& args) const override {
    each_type(args, [&]<class L, class D>() { launch_rows<L, D>(args); });
  }

  void chunk_sums(const ChunkSums& args) const override {
    dispatch_float(args.logits.dtype(), [&]<class L>() { launch_sums<L>(args); });
  }
  void chunk_rest(const ChunkRest& args) const override {
    each_type(args.chunk, [&]<class L, class D>() { launch_rest<L, D>(args); });
  }

  void loss(const Tensor& nll, const Tensor& weights, double scale,
            const Tensor& loss) const override {
    const unsigned blocks = blocks_for(nll.size(), kLossPiece);
    const Tensor pieces = Tensor::empty({blocks}, DType::kFloat64, Device::kCuda);
    dispatch_accumulator(nll.dtype(), [&]<class A>() {
      if (blocks > 0)
        loss_pieces_kernel<<<blocks, kLossThreads, 0, cuda_stream()>>>(
            nll.data<A>(), weights ? weights.data<float>() : nullptr, nll.size(),
            pieces.data<double>());
      check_launch("cross_entropy");
      loss_kernel<<<1, kLossThreads, 0, cuda_stream()>>>(pieces.data<double>(), blocks, scale,
                                                         loss.data<A>());
      check_launch("cross_entropy");
    });
  }

 private:
  // launch<L, D>() with the types of the logits and of their gradient.
  template <class Launch>
  static void each_type(const Chunk& args, Launch launch) {
    dispatch_float(args.logits.dtype(), [&]<class L>() {
      if (!args.dlogits || args.dlogits.dtype() == dtype_of<L>())
        return launch.template operator()<L, L>();
      if constexpr (std::is_same_v<L, float>) return launch.template operator()<L, BFloat16>();
      check(false, "cross_entropy: logits of ", args.logits.dtype(), " and a gradient of ",
            args.dlogits.dtype());
    });
  }
};

}  // namespace

const CrossEntropyKernels& cuda_cross_entropy() {
  static const CudaCrossEntropy kernels;
  return kernels;
}

}  // namespace infini
