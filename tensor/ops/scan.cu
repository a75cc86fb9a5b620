#include <type_traits>

#include "tensor/ops/scan.h"
#include "tensor/ops/scan_affine.cuh"

namespace infini {
namespace {

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

// The same from the last segment to the first.
template <class A, int n>
__global__ void __launch_bounds__(256)
    accumulate_grad_kernel(ScanGradients<A> args, const std::uint8_t* resets, Detach detach,
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

// Over groups that lie `stride` numbers apart, of which one keeps the state before it.
template <class A, int n>
__global__ void __launch_bounds__(256)
    group_scan_kernel(const A* __restrict__ sums, std::int64_t stride, const A* initial,
                      const std::uint8_t* resets, int groups, int index, std::int64_t state,
                      std::int64_t count, A* before, A* after) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * 256 + threadIdx.x) * n;
  if (i >= count) return;
  A now[n] = {};
  if (initial) load_pack<n>(initial + i, now);
#pragma unroll 2
  for (int q = 0; q < groups; ++q) {
    const bool reset = resets && resets[i / state * groups + q];
    A sum[n];
    load_pack<n>(sums + q * stride + i, sum);
    if (q == index) store_pack<n>(before + i, now);
#pragma unroll
    for (int k = 0; k < n; ++k) now[k] = (reset ? A(0) : now[k]) + sum[k];
  }
  store_pack<n>(after + i, now);
}

// The same from the last group to the first; args.dbefore is of all groups, args.dsums of one.
template <class A, int n>
__global__ void __launch_bounds__(256)
    group_scan_grad_kernel(ScanGradients<A> args, std::int64_t stride, const std::uint8_t* resets,
                           Detach detach, int groups, int index, std::int64_t state,
                           std::int64_t count) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * 256 + threadIdx.x) * n;
  if (i >= count) return;
  const A* __restrict__ dbefore = args.dbefore;
  A gradient[n] = {};
  if (args.dafter) load_pack<n>(args.dafter + i, gradient);
#pragma unroll 2
  for (int q = groups - 1; q >= 0; --q) {
    const bool cut = (resets && resets[i / state * groups + q]) || detach.before(q);
    A more[n];
    load_pack<n>(dbefore + q * stride + i, more);
    if (q == index && args.dsums) put_numbers<n>(args.dsums + i, gradient, args.add_sums);
#pragma unroll
    for (int k = 0; k < n; ++k) gradient[k] = (cut ? A(0) : gradient[k]) + more[k];
  }
  if (args.dinitial) put_numbers<n>(args.dinitial + i, gradient, args.add_initial);
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
      const ScanGradients<A> gradients{data<A>(args.dbefore),      data<A>(args.dafter),
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

  void group_scan(const GroupForward& args) const override {
    dispatch_accumulator(args.after.dtype(), [&]<class A>() {
      by_pack(args.sums, args.after.shape(), [&]<int n>(const Groups& at) {
        launch("scan", group_scan_kernel<A, n>, blocks_for(at.count, 256 * n), 256, 0,
               args.sums.all.data<A>() + args.sums.begin, at.stride, data<A>(args.initial),
               data<std::uint8_t>(args.resets), at.groups, args.index, at.state, at.count,
               args.before.data<A>(), args.after.data<A>());
      });
    });
  }

  void group_scan_grad(const GroupBackward& args) const override {
    dispatch_accumulator(args.dbefore.all.dtype(), [&]<class A>() {
      const ScanGradients<A> gradients{args.dbefore.all.data<A>() + args.dbefore.begin,
                                       data<A>(args.dafter),
                                       data<A>(args.dsums.tensor),
                                       data<A>(args.dinitial.tensor),
                                       args.dsums.accumulate,
                                       args.dinitial.accumulate};
      by_pack(args.dbefore, args.state, [&]<int n>(const Groups& at) {
        launch("scan_grad", group_scan_grad_kernel<A, n>, blocks_for(at.count, 256 * n), 256, 0,
               gradients, at.stride, data<std::uint8_t>(args.resets), detach_bits(args.detach),
               at.groups, args.index, at.state, at.count);
      });
    });
  }

 private:
  struct Groups {
    int groups;
    std::int64_t stride, state, count;  // numbers from group to group, of a row, of all rows
  };
  // Calls use.operator()<n>(groups) for as many numbers at a time as lie together everywhere.
  template <class Use>
  static void by_pack(const GroupPart& part, const Shape& shape, const Use& use) {
    if (shape.size() == 0) return;
    const auto [groups, stride] = part.all.dims<2>();
    const Groups at{.groups = static_cast<int>(groups),
                    .stride = stride,
                    .state = shape.size() / shape[0],
                    .count = shape.size()};
    at.state % 4 == 0 && stride % 4 == 0 && part.begin % 4 == 0 ? use.template operator()<4>(at)
                                                                : use.template operator()<1>(at);
  }

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
                          const ScanGradients<A>& gradients, const Detach& detach) {
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
    const std::int64_t states = args.shape[0] * args.shape[1] * args.shape[2];
    const A* before = args.before.data<A>();
    A* doverlap = args.doverlap.tensor.data<A>();
    const bool accumulate = args.doverlap.accumulate;
    if constexpr (std::is_same_v<A, float>)
      if (affine.width > 64)
        return wide_overlap_grad(states, {affine.width, gradient, before, doverlap, accumulate});
    tiled_product<A>("affine_scan_grad", states,
                     OverlapGradProduct<A>{affine.width, affine.width, affine.width, gradient,
                                           before, doverlap, accumulate});
  }
};

}  // namespace

const ScanKernels& cuda_scan() {
  static const CudaScan kernels;
  return kernels;
}

}  // namespace infini
