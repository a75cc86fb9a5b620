#include <algorithm>

#include "tensor/ops/instructions.cuh"
#include "tensor/ops/scan.h"
#include "tensor/ops/tiled_product.cuh"

namespace infini {
namespace {

// The borders that gradients do not cross, handed to kernels by value.
struct Detach {
  static constexpr int kMost = 4096;
  std::uint32_t words[kMost / 32] = {};

  __device__ bool before(int segment) const { return words[segment / 32] >> segment % 32 & 1; }
};

Detach detach_bits(const std::vector<std::uint8_t>& marks) {
  check(marks.size() <= Detach::kMost, "scan: gradients are cut in a row of ", marks.size(),
        " segments, at most ", +Detach::kMost);
  Detach detach;
  for (std::size_t s = 0; s < marks.size(); ++s)
    if (marks[s]) detach.words[s / 32] |= 1u << s % 32;
  return detach;
}

// Each thread carries n numbers of one state through all segments. Bound by memory: every number of
// the sums is read once and every number of `before` written once.
template <class A, int n>
__global__ void __launch_bounds__(256)
    accumulate_kernel(const A* __restrict__ sums, const A* initial, const std::uint8_t* resets,
                      int segments, std::int64_t state, std::int64_t count, A* __restrict__ before,
                      A* after) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * 256 + threadIdx.x) * n;
  if (i >= count) return;
  const std::int64_t row = i / state * segments;
  A now[n] = {};
  if (initial) load_pack<n>(initial + i, now);
#pragma unroll 4
  for (int s = 0; s < segments; ++s) {
    const std::int64_t at = (row + s) * state + i % state;
    const bool reset = resets && resets[row + s];
    A sum[n];
    load_pack<n>(sums + at, sum);
#pragma unroll
    for (int k = 0; k < n; ++k) now[k] = reset ? A(0) : now[k];
    store_pack<n>(before + at, now);
#pragma unroll
    for (int k = 0; k < n; ++k) now[k] += sum[k];
  }
  store_pack<n>(after + i, now);
}

template <class A>
struct Gradients {
  const A *dbefore, *dafter;  // either may be null
  A *dsums, *dinitial;        // either may be null
  bool add_sums, add_initial;
};

template <int n, class A>
__device__ __forceinline__ void put_numbers(A* to, const A (&values)[n], bool accumulate) {
  A sum[n] = {};
  if (accumulate) load_pack<n>(to, sum);
#pragma unroll
  for (int k = 0; k < n; ++k) sum[k] += values[k];
  store_pack<n>(to, sum);
}

// The same from the last segment to the first.
template <class A, int n>
__global__ void __launch_bounds__(256)
    accumulate_grad_kernel(Gradients<A> args, const std::uint8_t* resets, Detach detach,
                           int segments, std::int64_t state, std::int64_t count) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * 256 + threadIdx.x) * n;
  if (i >= count) return;
  const std::int64_t row = i / state * segments;
  const A* __restrict__ dbefore = args.dbefore;
  A* __restrict__ dsums = args.dsums;
  A gradient[n] = {};
  if (args.dafter) load_pack<n>(args.dafter + i, gradient);
#pragma unroll 4
  for (int s = segments - 1; s >= 0; --s) {
    const std::int64_t at = (row + s) * state + i % state;
    const bool cut = (resets && resets[row + s]) || detach.before(s);
    A more[n] = {};
    if (dbefore) load_pack<n>(dbefore + at, more);
    if (dsums) put_numbers<n>(dsums + at, gradient, args.add_sums);
#pragma unroll
    for (int k = 0; k < n; ++k) gradient[k] = cut ? A(0) : gradient[k] + more[k];
  }
  if (args.dinitial) put_numbers<n>(args.dinitial + i, gradient, args.add_initial);
}

template <class A>
struct AffineScan {
  int segments, heads, width;
  const A* overlap;
  const std::uint8_t* resets;
  // Forwards.
  const A *sums, *initial;
  A *before, *after;
  // Backwards.
  Gradients<A> gradients;
  A* gradient_of_sums;  // G of every segment once more, or null
};

// Columns of a state evolve by themselves: one block carries 32 columns of one head through all
// segments, in registers and, as the operand of the next product, in shared memory; A_s streams by
// in panels 16 deep. Each thread holds kRows / 32 x 4 numbers. Exact in A, and bound by its rate of
// multiply-adds: K^2 per column and segment.
//   forwards:   state <- state - A_s state + sums_s
//   backwards:  G <- G - A_s^T G + dbefore_s, where dsums_s is G before that
template <class A, int kRows>
struct AffineBlock {
  static constexpr int kColumns = 32, kDepth = 16, kPitch = kRows + 4, kParts = kRows / 128;
  static constexpr int kThreads = 256;
  struct Shared {
    A panels[2][kDepth][kPitch];
    A state[kRows][kColumns];
  };

  const AffineScan<A>& args;
  Shared& shared;
  int column = blockIdx.x * kColumns + threadIdx.x % 8 * 4, head = blockIdx.y;
  int first_row = threadIdx.x / 8 * 4;

  // Where the numbers [row, columns of this thread] of a state lie, numbered as in [.., Hk, K, K].
  __device__ std::int64_t at(std::int64_t state, int row) const {
    return ((state * args.heads + head % args.heads) * args.width + row) * args.width + column;
  }
  __device__ std::int64_t state_of(int segment) const {
    return std::int64_t{head / args.heads} * args.segments + segment;
  }

  // Calls task(part, r, c, offset) for the numbers of this thread that are there.
  template <class Task>
  __device__ __forceinline__ void each(std::int64_t state, Task task) const {
#pragma unroll
    for (int part = 0; part < kParts; ++part)
#pragma unroll
      for (int r = 0; r < 4; ++r)
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const int row = part * 128 + first_row + r;
          if (row < args.width && column + c < args.width) task(part, r, c, at(state, row) + c);
        }
  }

  // Begins to load panel[d][r], 16 columns of A_s forwards and 16 rows of it backwards.
  template <bool kBackward>
  __device__ void load(int segment, int first, A (&panel)[kDepth][kPitch]) const {
    const std::int64_t state = state_of(segment) * args.heads + head % args.heads;
    const A* overlap = args.overlap + state * args.width * args.width;
#pragma unroll
    for (int i = threadIdx.x; i < kDepth * kRows; i += kThreads) {
      const int d = kBackward ? i / kRows : i % kDepth, r = kBackward ? i % kRows : i / kDepth;
      const bool valid = first + d < args.width && r < args.width;
      const int from = kBackward ? (first + d) * args.width + r : r * args.width + first + d;
      copy_async<sizeof(A)>(&panel[d][r], overlap + (valid ? from : 0), valid);
    }
  }

  // change += panel^T state[first ..].
  __device__ void multiply(const A (&panel)[kDepth][kPitch], int first, A (&change)[kParts][4][4]) {
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      A state[4];
      load_pack<4>(&shared.state[first + d][threadIdx.x % 8 * 4], state);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        A factor[4];
        load_pack<4>(&panel[d][part * 128 + first_row], factor);
#pragma unroll
        for (int r = 0; r < 4; ++r)
#pragma unroll
          for (int c = 0; c < 4; ++c) change[part][r][c] += factor[r] * state[c];
      }
    }
  }

  template <bool kBackward>
  __device__ void run(const Detach& detach) {
    const int panels = (args.width + kDepth - 1) / kDepth, batch_row = head / args.heads;
    const auto segment_at = [&](int step) { return kBackward ? args.segments - 1 - step : step; };
    const Gradients<A>& gradients = args.gradients;
    A now[kParts][4][4] = {};
    const A* initial = kBackward ? gradients.dafter : args.initial;
    if (initial)
      each(batch_row, [&](int p, int r, int c, std::int64_t i) { now[p][r][c] = initial[i]; });

    load<kBackward>(segment_at(0), 0, shared.panels[0]);
    copy_async_group();
    int loaded = 0;
    for (int step = 0; step < args.segments; ++step) {
      const int s = segment_at(step);
      const bool reset = args.resets && args.resets[state_of(s)];
      A more[kParts][4][4] = {};
      const A* added = kBackward ? gradients.dbefore : args.sums;
      if (added)
        each(state_of(s), [&](int p, int r, int c, std::int64_t i) { more[p][r][c] = added[i]; });
      if (!kBackward && reset) clear(now);
      each(state_of(s), [&](int p, int r, int c, std::int64_t i) {
        if (kBackward) {
          if (gradients.dsums) put(gradients.dsums + i, now[p][r][c], gradients.add_sums);
          if (args.gradient_of_sums) args.gradient_of_sums[i] = now[p][r][c];
        } else {
          args.before[i] = now[p][r][c];
        }
      });
#pragma unroll
      for (int part = 0; part < kParts; ++part)
#pragma unroll
        for (int r = 0; r < 4; ++r)
          store_pack<4>(&shared.state[part * 128 + first_row + r][threadIdx.x % 8 * 4],
                        now[part][r]);

      A change[kParts][4][4] = {};
      for (int panel = 0; panel < panels; ++panel, ++loaded) {
        const bool last = panel + 1 == panels;
        if (!last || step + 1 < args.segments)
          load<kBackward>(segment_at(last ? step + 1 : step), last ? 0 : (panel + 1) * kDepth,
                          shared.panels[(loaded + 1) % 2]);
        copy_async_group();
        copy_async_wait<1>();
        __syncthreads();
        multiply(shared.panels[loaded % 2], panel * kDepth, change);
        __syncthreads();
      }
#pragma unroll
      for (int part = 0; part < kParts; ++part)
#pragma unroll
        for (int r = 0; r < 4; ++r)
#pragma unroll
          for (int c = 0; c < 4; ++c) now[part][r][c] += more[part][r][c] - change[part][r][c];
      if (kBackward && (reset || detach.before(s))) clear(now);
    }

    A* last = kBackward ? gradients.dinitial : args.after;
    const bool accumulate = kBackward && gradients.add_initial;
    if (last)
      each(batch_row,
           [&](int p, int r, int c, std::int64_t i) { put(last + i, now[p][r][c], accumulate); });
  }

  static __device__ void clear(A (&numbers)[kParts][4][4]) {
#pragma unroll
    for (int i = 0; i < kParts * 16; ++i) numbers[i / 16][i / 4 % 4][i % 4] = 0;
  }
};

template <class A, int kRows, bool kBackward>
__global__ void __launch_bounds__(256) affine_kernel(AffineScan<A> args, Detach detach) {
  extern __shared__ __align__(16) unsigned char shared[];
  using Block = AffineBlock<A, kRows>;
  Block{args, *reinterpret_cast<typename Block::Shared*>(shared)}.template run<kBackward>(detach);
}

template <bool kBackward, class A>
void affine_scan(const AffineScan<A>& args, std::int64_t batch, const Detach& detach) {
  check(args.width <= 256, "affine_scan: a head is ", args.width, " wide, on cuda at most 256");
  const auto run = [&]<int kRows>() {
    const dim3 blocks(blocks_for(args.width, AffineBlock<A, kRows>::kColumns),
                      static_cast<unsigned>(batch * args.heads));
    launch("affine_scan", affine_kernel<A, kRows, kBackward>, blocks, 256,
           sizeof(typename AffineBlock<A, kRows>::Shared), args, detach);
  };
  if (args.width <= 128)
    run.template operator()<128>();
  else
    run.template operator()<256>();
}

// dA_s = -G_s before_s^T for every head of every segment.
template <class A>
struct OverlapGradProduct {
  static constexpr bool kXByDepth = true, kYByDepth = true;
  int rows, columns, depth;
  const A *gradient, *before;
  A* doverlap;
  bool accumulate;

  __device__ std::int64_t at(int state, int row) const {
    return (std::int64_t{state} * rows + row) * rows;
  }
  __device__ A x(int state, int row, int d) const { return gradient[at(state, row) + d]; }
  __device__ A y(int state, int d, int column) const { return before[at(state, column) + d]; }
  __device__ void store(int state, int row, int column, A sum) const {
    put(doverlap + at(state, row) + column, -sum, accumulate);
  }
};

template <class A>
A* data(const Tensor& tensor) {
  return tensor ? tensor.data<A>() : nullptr;
}

class CudaScan final : public ScanKernels {
 public:
  void scan(const Forward& args) const override {
    dispatch_accumulator(args.sums.dtype(), [&]<class A>() {
      const std::int64_t batch = args.sums.shape()[0], count = args.after.size();
      if (count == 0) return;
      const int segments = static_cast<int>(args.sums.shape()[1]);
      const auto* resets = data<std::uint8_t>(args.resets);
      if (args.overlap) {
        AffineScan<A> affine = affine_of<A>(args.sums.shape(), args.overlap, resets);
        affine.sums = args.sums.data<A>();
        affine.initial = data<A>(args.initial);
        affine.before = args.before.data<A>();
        affine.after = args.after.data<A>();
        return affine_scan<false>(affine, batch, {});
      }
      const auto run = [&]<int n>() {
        launch("scan", accumulate_kernel<A, n>, blocks_for(count, 256 * n), 256, 0,
               args.sums.data<A>(), data<A>(args.initial), resets, segments, count / batch, count,
               args.before.data<A>(), args.after.data<A>());
      };
      count / batch % 4 == 0 ? run.template operator()<4>() : run.template operator()<1>();
    });
  }

  void scan_grad(const Backward& args) const override {
    dispatch_accumulator(args.dtype, [&]<class A>() {
      const std::int64_t batch = args.shape[0], segments = args.shape[1];
      if (args.shape.size() == 0) return;
      const std::int64_t state = args.shape.size() / (batch * segments);
      const auto* resets = data<std::uint8_t>(args.resets);
      const Gradients<A> gradients{data<A>(args.dbefore),      data<A>(args.dafter),
                                   data<A>(args.dsums.tensor), data<A>(args.dinitial.tensor),
                                   args.dsums.accumulate,      args.dinitial.accumulate};
      const Detach detach = detach_bits(args.detach);
      if (args.overlap) return affine_grad<A>(args, resets, gradients, detach);
      const auto run = [&]<int n>() {
        launch("scan_grad", accumulate_grad_kernel<A, n>, blocks_for(batch * state, 256 * n), 256,
               0, gradients, resets, detach, static_cast<int>(segments), state, batch * state);
      };
      state % 4 == 0 ? run.template operator()<4>() : run.template operator()<1>();
    });
  }

 private:
  template <class A>
  static AffineScan<A> affine_of(const Shape& sums, const Tensor& overlap,
                                 const std::uint8_t* resets) {
    AffineScan<A> affine{};
    affine.segments = static_cast<int>(sums[1]);
    affine.heads = static_cast<int>(sums[2]);
    affine.width = static_cast<int>(sums[-1]);
    affine.overlap = overlap.data<A>();
    affine.resets = resets;
    return affine;
  }

  template <class A>
  static void affine_grad(const Backward& args, const std::uint8_t* resets,
                          const Gradients<A>& gradients, const Detach& detach) {
    AffineScan<A> affine = affine_of<A>(args.shape, args.overlap, resets);
    affine.gradients = gradients;
    // dA needs the gradient of every sum, without what stood in the target before.
    Tensor gradient_of_sums;
    if (args.doverlap && !(args.dsums && !args.dsums.accumulate)) {
      gradient_of_sums = Tensor::empty_like(args.overlap);
      affine.gradient_of_sums = gradient_of_sums.data<A>();
    }
    affine_scan<true>(affine, args.shape[0], detach);
    if (!args.doverlap) return;
    const A* gradient = gradient_of_sums ? gradient_of_sums.data<A>() : gradients.dsums;
    tiled_product<A>("affine_scan_grad", args.shape[0] * args.shape[1] * args.shape[2],
                     OverlapGradProduct<A>{affine.width, affine.width, affine.width, gradient,
                                           args.before.data<A>(), args.doverlap.tensor.data<A>(),
                                           args.doverlap.accumulate});
  }
};

}  // namespace

const ScanKernels& cuda_scan() {
  static const CudaScan kernels;
  return kernels;
}

}  // namespace infini
