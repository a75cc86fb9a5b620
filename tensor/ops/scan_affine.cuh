// The affine scan of scan.h, for any width up to 256, and what its kernels share with the others.
#pragma once

#include "tensor/ops/detach.cuh"
#include "tensor/ops/instructions.cuh"
#include "tensor/ops/tiled_product.cuh"

namespace infini {

template <class A>
struct ScanGradients {
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

template <class A>
struct AffineScan {
  int segments, heads, width;
  const A* overlap;
  const std::uint8_t* resets;
  // Forwards.
  const A *sums, *initial;
  A *before, *after;
  // Backwards.
  ScanGradients<A> gradients;
  A* gradient_of_sums;  // G of every segment once more, or null
};

// Columns of a state evolve by themselves: one block carries 32 columns of one head through all
// segments, in registers and, as the operand of the next product, in shared memory; A_s streams by
// in panels 16 deep, some of them ahead. Each half of the block takes half of the depth of every
// panel, 8 x 4 numbers a thread for 128 rows, and owns half of the rows of the sum. Exact in A, and
// bound by its rate of multiply-adds: K^2 per column and segment.
//   forwards:   state <- state - A_s state + sums_s
//   backwards:  G <- G - A_s^T G + dbefore_s, where dsums_s is G before that
template <class A, int kRows>
struct AffineBlock {
  static constexpr int kThreads = 256, kColumns = 32, kDepth = 16, kPitch = kRows + 4;
  static constexpr int kStages = sizeof(A) * kRows <= 1024 ? 4 : 2;
  static constexpr int kParts = kRows / 64, kOwned = kParts / 2;  // of 64 rows
  struct Shared {
    A panels[kStages][kDepth][kPitch];
    A state[kRows][kColumns];
  };

  const AffineScan<A>& args;
  Shared& shared;
  int half = threadIdx.x / 128, first_row = threadIdx.x % 128 / 8 * 4;
  int column = blockIdx.x * kColumns + threadIdx.x % 8 * 4, head = blockIdx.y;

  // The first of the four rows of this thread in a part that it owns, or that the other half does.
  __device__ int row_of(int part, int owner) const {
    return (owner * kOwned + part) * 64 + first_row;
  }
  __device__ A* state_at(int row) const { return &shared.state[row][threadIdx.x % 8 * 4]; }

  // Where the numbers [row, columns of this thread] of a state lie, numbered as in [.., Hk, K, K].
  __device__ std::int64_t at(std::int64_t state, int row) const {
    return ((state * args.heads + head % args.heads) * args.width + row) * args.width + column;
  }
  __device__ std::int64_t state_of(int segment) const {
    return std::int64_t{head / args.heads} * args.segments + segment;
  }

  // Calls task(part, r, offset) for the rows of this thread that are there.
  template <class Task>
  __device__ __forceinline__ void each(std::int64_t state, Task task) const {
#pragma unroll
    for (int part = 0; part < kOwned; ++part)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int row = row_of(part, half) + r;
        if (row < args.width && column < args.width) task(part, r, at(state, row));
      }
  }
  // The four numbers of a row that this thread has, as far as they are there.
  __device__ __forceinline__ void read(const A* from, A (&numbers)[4]) const {
    if (args.width % 4 == 0) return load_pack<4>(from, numbers);
#pragma unroll
    for (int c = 0; c < 4; ++c) numbers[c] = column + c < args.width ? from[c] : A(0);
  }
  __device__ __forceinline__ void write(A* to, const A (&numbers)[4], bool accumulate) const {
    if (args.width % 4 == 0) return put_numbers<4>(to, numbers, accumulate);
#pragma unroll
    for (int c = 0; c < 4; ++c)
      if (column + c < args.width) put(to + c, numbers[c], accumulate);
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

  // change += panel^T state[first ..], over the depth of this half.
  __device__ void multiply(const A (&panel)[kDepth][kPitch], int first, A (&change)[kParts][4][4]) {
#pragma unroll
    for (int i = 0; i < kDepth / 2; ++i) {
      const int d = half * (kDepth / 2) + i;
      A state[4];
      load_pack<4>(state_at(first + d), state);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        A factor[4];
        load_pack<4>(&panel[d][part * 64 + first_row], factor);
#pragma unroll
        for (int r = 0; r < 4; ++r)
#pragma unroll
          for (int c = 0; c < 4; ++c) change[part][r][c] += factor[r] * state[c];
      }
    }
  }

  // now += more - change, with what the other half found. The state in shared memory is no longer
  // read: each half leaves there what the other wants.
  __device__ void advance(const A (&more)[kOwned][4][4], const A (&change)[kParts][4][4],
                          A (&now)[kOwned][4][4]) {
    __syncthreads();
#pragma unroll
    for (int part = 0; part < kOwned; ++part)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        A theirs[4];
#pragma unroll
        for (int c = 0; c < 4; ++c)
          theirs[c] = half ? change[part][r][c] : change[part + kOwned][r][c];
        store_pack<4>(state_at(row_of(part, 1 - half) + r), theirs);
      }
    __syncthreads();
#pragma unroll
    for (int part = 0; part < kOwned; ++part)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        A theirs[4];
        load_pack<4>(state_at(row_of(part, half) + r), theirs);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const A mine = half ? change[part + kOwned][r][c] : change[part][r][c];
          now[part][r][c] += more[part][r][c] - (mine + theirs[c]);
        }
      }
  }

  template <bool kBackward>
  __device__ void run(const Detach& detach) {
    const int panels = (args.width + kDepth - 1) / kDepth, batch_row = head / args.heads;
    const auto segment_at = [&](int step) { return kBackward ? args.segments - 1 - step : step; };
    const ScanGradients<A>& gradients = args.gradients;
    A now[kOwned][4][4] = {};
    const A* initial = kBackward ? gradients.dafter : args.initial;
    if (initial)
      each(batch_row, [&](int p, int r, std::int64_t i) { read(initial + i, now[p][r]); });

    int load_step = 0, load_panel = 0, load_turn = 0, turn = 0;
    const auto load_next = [&] {
      if (load_step < args.segments)
        load<kBackward>(segment_at(load_step), load_panel * kDepth, shared.panels[load_turn]);
      copy_async_group();
      load_turn = (load_turn + 1) % kStages;
      if (++load_panel < panels) return;
      load_panel = 0;
      ++load_step;
    };
    for (int i = 0; i + 1 < kStages; ++i) load_next();
    for (int step = 0; step < args.segments; ++step) {
      const int s = segment_at(step);
      const bool reset = args.resets && args.resets[state_of(s)];
      A more[kOwned][4][4] = {};
      const A* added = kBackward ? gradients.dbefore : args.sums;
      if (added)
        each(state_of(s), [&](int p, int r, std::int64_t i) { read(added + i, more[p][r]); });
      if (!kBackward && reset) clear(now);
      each(state_of(s), [&](int p, int r, std::int64_t i) {
        if (kBackward) {
          if (gradients.dsums) write(gradients.dsums + i, now[p][r], gradients.add_sums);
          if (args.gradient_of_sums) write(args.gradient_of_sums + i, now[p][r], false);
        } else {
          write(args.before + i, now[p][r], false);
        }
      });
#pragma unroll
      for (int part = 0; part < kOwned; ++part)
#pragma unroll
        for (int r = 0; r < 4; ++r) store_pack<4>(state_at(row_of(part, half) + r), now[part][r]);

      A change[kParts][4][4] = {};
      for (int panel = 0; panel < panels; ++panel, turn = (turn + 1) % kStages) {
        copy_async_wait<kStages - 2>();
        __syncthreads();  // the panel is there, and the one before is no longer read
        load_next();
        multiply(shared.panels[turn], panel * kDepth, change);
      }
      advance(more, change, now);
      if (kBackward && (reset || detach.before(s))) clear(now);
    }

    A* last = kBackward ? gradients.dinitial : args.after;
    const bool accumulate = kBackward && gradients.add_initial;
    if (last)
      each(batch_row,
           [&](int p, int r, std::int64_t i) { write(last + i, now[p][r], accumulate); });
  }

  static __device__ void clear(A (&numbers)[kOwned][4][4]) {
#pragma unroll
    for (int i = 0; i < kOwned * 16; ++i) numbers[i / 16][i / 4 % 4][i % 4] = 0;
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

// dA_s = -G_s before_s^T for every head of every segment, in fp32 and heads wider than 64. One
// block makes 128 x 128 numbers, each thread 8 x 8 of them, with the operands in shared memory 16
// deep, two panels ahead. Bound by the rate of multiply-adds.
struct WideOverlapGrad {
  static constexpr int kTile = 128, kDepth = 16, kStages = 3, kThreads = 256;
  struct Panel {
    float g[kDepth][kTile + 4], before[kDepth][kTile + 4];
  };
  int width;
  const float *gradient, *before;
  float* doverlap;
  bool accumulate;
};

static __global__ void __launch_bounds__(256, 2) wide_overlap_grad_kernel(WideOverlapGrad args) {
  using W = WideOverlapGrad;
  extern __shared__ __align__(16) unsigned char shared[];
  auto* panels = reinterpret_cast<W::Panel*>(shared);
  const int width = args.width, tiles = (width + W::kTile - 1) / W::kTile;
  const int first_row = blockIdx.y / tiles * W::kTile, first_column = blockIdx.y % tiles * W::kTile;
  const int thread_row = threadIdx.x / 16 * 4, thread_column = threadIdx.x % 16 * 4;
  const std::int64_t state = std::int64_t{blockIdx.x} * width * width;
  const int depth_panels = (width + W::kDepth - 1) / W::kDepth;

  const auto load = [&](int panel) {
    if (panel < depth_panels) {
      W::Panel& to = panels[panel % W::kStages];
      const int d = threadIdx.x % W::kDepth, column = panel * W::kDepth + d;
#pragma unroll
      for (int i = 0; i < W::kDepth * W::kTile / W::kThreads; ++i) {
        const int r = threadIdx.x / W::kDepth + i * (W::kThreads / W::kDepth);
        const bool g_in = column < width && first_row + r < width;
        const bool before_in = column < width && first_column + r < width;
        const int g = (first_row + r) * width + column, b = (first_column + r) * width + column;
        copy_async<4>(&to.g[d][r], args.gradient + state + (g_in ? g : 0), g_in);
        copy_async<4>(&to.before[d][r], args.before + state + (before_in ? b : 0), before_in);
      }
    }
    copy_async_group();
  };
  float sums[8][8] = {};
  load(0);
  load(1);
  for (int panel = 0; panel < depth_panels; ++panel) {
    copy_async_wait<W::kStages - 2>();
    __syncthreads();  // the panel is there, and the one before is no longer read
    load(panel + W::kStages - 1);
    const W::Panel& from = panels[panel % W::kStages];
#pragma unroll
    for (int d = 0; d < W::kDepth; ++d) {
      float x[2][4], y[2][4];
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        load_pack<4>(&from.g[d][part * 64 + thread_row], x[part]);
        load_pack<4>(&from.before[d][part * 64 + thread_column], y[part]);
      }
#pragma unroll
      for (int r = 0; r < 8; ++r)
#pragma unroll
        for (int c = 0; c < 8; ++c) sums[r][c] -= x[r / 4][r % 4] * y[c / 4][c % 4];
    }
  }
#pragma unroll
  for (int r = 0; r < 8; ++r)
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const int row = first_row + r / 4 * 64 + thread_row + r % 4;
      const int column = first_column + part * 64 + thread_column;
      float* to = args.doverlap + state + std::int64_t{row} * width + column;
      if (row >= width || column >= width) continue;
      float values[4];
#pragma unroll
      for (int c = 0; c < 4; ++c) values[c] = sums[r][part * 4 + c];
      if (width % 4 == 0) {
        put_numbers<4>(to, values, args.accumulate);
      } else {
#pragma unroll
        for (int c = 0; c < 4; ++c)
          if (column + c < width) put(to + c, values[c], args.accumulate);
      }
    }
}

inline void wide_overlap_grad(std::int64_t states, const WideOverlapGrad& args) {
  const unsigned tiles = blocks_for(args.width, WideOverlapGrad::kTile);
  launch("affine_scan_grad", wide_overlap_grad_kernel,
         dim3{static_cast<unsigned>(states), tiles * tiles}, WideOverlapGrad::kThreads,
         WideOverlapGrad::kStages * sizeof(WideOverlapGrad::Panel), args);
}

}  // namespace infini
