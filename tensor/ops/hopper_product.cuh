// Products of bf16 whose result goes through gelu or is multiplied by its slope, on Hopper:
//   kGrad false:  C = gelu(A B^T), kept = A B^T    A [M, K], B [N, K]
//   kGrad true:   C = (A B) * gelu'(kept)          A [M, K], B [K, N]
// A block works on tiles of 128 x 256 of C, one after the other: one warpgroup copies, two multiply
// 64 rows each. When the sums of a tile are complete they are rounded to bf16, which frees their
// registers, and while the tensor cores work on the next tile the same threads take the last one
// through gelu and write it, a piece at a time. So all but the rounding hides behind products.
// Two blocks of a cluster work on tiles one below the other; each copies half of B to both.
#pragma once

#include <cstddef>

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/hopper_product_instructions.cuh"

namespace infini::hopper::product {

constexpr int kRows = 128, kColumns = 256;  // of a tile
constexpr int kStages = 4;                  // factors of 64 terms of the sums each
constexpr int kConsumers = 2;
constexpr int kWarps = kConsumers * kWarpgroup / 32;     // that compute
constexpr int kThreads = (kConsumers + 1) * kWarpgroup;  // the last warpgroup copies
// A block may share out what its threads have at first and no more.
constexpr int kConsumerRegisters = 240, kProducerRegisters = 24;
static_assert(kConsumers * kConsumerRegisters + kProducerRegisters <=
              (kConsumers + 1) * (65536 / kThreads / 8 * 8));

// What a warp takes through gelu at a time, and how much of it may be on its way. In shared memory
// the 16-byte unit u of row i stands at u ^ i / 2 % 4 ("64-byte swizzle").
constexpr int kPieceRows = 16, kPieceColumns = 32;
constexpr int kPieces = kColumns / kPieceColumns;
constexpr int kSlots = 4;
using Piece = __nv_bfloat16[kPieceRows * kPieceColumns];

struct alignas(1024) Shared {
  __nv_bfloat16 a[kStages][kRows * kChunk], b[kStages][kColumns * kChunk];
  Piece pieces[kWarps][kSlots];
  Barrier full[kStages], empty[kStages];
  Barrier arrived[kWarps][kSlots];  // pieces of `kept`
};
constexpr int kStageBytes = sizeof(Shared::a[0]) + sizeof(Shared::b[0]);

// The first row and column of a tile.
struct Place {
  int row, column;
};
// Clusters take items in turn. Bands of columns of tiles, narrow enough for their part of B to stay
// in the L2 cache, one after the other; in a band row by row, so that A is read once for it.
struct Order {
  int down, across;  // tiles of a cluster in a column, in a row
  int band;          // tiles in a row of a band

  __host__ __device__ int items() const { return down * across; }
  // In tiles of a cluster.
  __device__ Place operator[](int item) const {
    const int first = item / (band * down) * band, rest = item - first * down;
    const int width = min(band, across - first);
    return {rest / width, first + rest % width};
  }
};

// `a` and `b` are maps of chunks, `c` and `kept` of pieces.
struct Args {
  CUtensorMap a, b, c, kept;
  Order order;
  int rows;    // M
  int steps;   // chunks of K, but not fewer than there are pieces: beyond K all is 0
  bool keeps;  // not kGrad: whether `kept` is written
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// This thread, where it counts.
struct Worker {
  int warp = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x) / 32, 0);
  int lane = static_cast<int>(threadIdx.x) % 32;
};

// This block's tile of an item of its cluster.
template <int kCluster>
__device__ __forceinline__ Place tile_of(const Order& order, int item) {
  const Place place = order[item];
  return {(place.row * kCluster + static_cast<int>(blockIdx.x) % kCluster) * kRows,
          place.column * kColumns};
}

template <bool kGrad, int kCluster>
__device__ __forceinline__ void produce(const Args& args, Shared& shared) {
  constexpr int kPart = kColumns / kCluster;  // columns of C whose factors this block copies
  const int part = static_cast<int>(blockIdx.x) % kCluster * kPart;
  Turn turn;
  for (int item = blockIdx.x / kCluster; item < args.order.items(); item += gridDim.x / kCluster) {
    const auto [row, column] = tile_of<kCluster>(args.order, item);
#pragma unroll 1
    for (int step = 0; step < args.steps; ++step, turn.advance<kStages>()) {
      Barrier& full = shared.full[turn.slot];
      wait(shared.empty[turn.slot], turn.parity ^ 1);
      arrive_for(full, kStageBytes);
      copy_chunks<false>(shared.a[turn.slot], args.a, row, step, full);
      __nv_bfloat16* const b = shared.b[turn.slot] + part * kChunk;
      if constexpr (kGrad)
        copy_chunks<kCluster == 2>(b, args.b, step * kChunk, (column + part) / kChunk, full);
      else
        copy_chunks<kCluster == 2>(b, args.b, column + part, step, full);
    }
  }
}

// gelu(x) = x s with s = sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).
struct Gelu {
  static constexpr float kScale = 1.5957691216057308f;  // 2 sqrt(2/pi)
  static constexpr float kCube = 0.044715f * kScale;

  static __device__ __forceinline__ float sigmoid_of(float x) {
    return reciprocal_approx(1.0f + exp_approx(-x * (kScale + kCube * (x * x))));
  }
  static __device__ __forceinline__ float value(float x) { return x * sigmoid_of(x); }
  static __device__ __forceinline__ float slope(float x) {
    const float s = sigmoid_of(x);
    return s + x * (kScale + 3 * kCube * (x * x)) * (s - s * s);
  }
};

// Two bf16 of a register.
__device__ __forceinline__ float low_of(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_of(std::uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000);
}

// Takes a warp's 16 rows of a tile, sums rounded to bf16, to where they belong. Pieces of all tiles
// follow each other through the slots. Lane 0 has the copy engine fetch and write.
template <bool kGrad>
struct Finisher {
  static constexpr int kAhead = 2;  // kGrad: pieces of `kept` that are fetched before their time

  const Args& args;
  Piece (&slots)[kSlots];
  Barrier (&arrived)[kSlots];
  int lane;
  int first_row;  // of the warp's rows in a tile
  int place;      // in a piece, of the 16 bytes that this lane names to load and store matrices

  __device__ __forceinline__ Finisher(const Args& of, Shared& shared, const Worker& worker)
      : args(of),
        slots(shared.pieces[worker.warp]),
        arrived(shared.arrived[worker.warp]),
        lane(worker.lane),
        first_row(worker.warp * kPieceRows),
        place(lane % 16 * kPieceColumns + (lane / 16 ^ lane / 2 % 4) * 8) {}

  // Has piece p of `kept` come.
  __device__ __forceinline__ void fetch(int p, const Place& tile) const {
    arrive_for(arrived[p % kSlots], sizeof(Piece));
    copy_piece(slots[p % kSlots], args.kept, tile.row + first_row, tile.column + p * kPieceColumns,
               arrived[p % kSlots]);
  }
  // Of the first tile.
  __device__ __forceinline__ void begin(const Place& tile) const {
    if (kGrad && lane == 0)
#pragma unroll
      for (int p = 0; p < kAhead; ++p) fetch(p, tile);
  }
  // Before the block ends.
  __device__ __forceinline__ void end() const {
    if (lane == 0) write_wait<0>();
  }

  // Piece p of a tile. There is a tile after it when next is not null.
  __device__ __forceinline__ void piece(int p, const std::uint32_t (&rounded)[kColumns / 4],
                                        const Place& tile, const Place* next) const {
    // The slot of the piece before the last one is free again when its write has read it.
    if constexpr (kGrad) {
      if (lane == 0) {
        write_wait<1>();
        if (p + kAhead < kPieces)
          fetch(p + kAhead, tile);
        else if (next)
          fetch(p + kAhead - kPieces, *next);
      }
      __syncwarp();
      wait(arrived[p % kSlots], p / kSlots % 2);  // slots come round twice in a tile
      take(p, rounded, slots[p % kSlots], nullptr);
    } else {
      if (lane == 0) write_wait<1>();
      __syncwarp();
      take(p, rounded, slots[p % 2], args.keeps ? slots[2 + p % 2] : nullptr);
    }
    fence_shared();
    __syncwarp();
    if (lane == 0) {
      const int row = tile.row + first_row, column = tile.column + p * kPieceColumns;
      write_piece(args.c, row, column, slots[p % (kGrad ? kSlots : 2)]);
      if (!kGrad && args.keeps) write_piece(args.kept, row, column, slots[2 + p % 2]);
      write_group();
    }
  }

  // From the registers to slots; kGrad: over what is in `out`.
  __device__ __forceinline__ void take(int p, const std::uint32_t (&rounded)[kColumns / 4],
                                       __nv_bfloat16* out, __nv_bfloat16* kept) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // of the columns
      const int at = place ^ half * 16;
      std::uint32_t pairs[4], slopes[4];
      if (kGrad) load_matrices<false>(out + at, slopes);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t pair = rounded[8 * p + 4 * half + i];
        pairs[i] = kGrad ? pack_bf16(low_of(pair) * Gelu::slope(low_of(slopes[i])),
                                     high_of(pair) * Gelu::slope(high_of(slopes[i])))
                         : pack_bf16(Gelu::value(low_of(pair)), Gelu::value(high_of(pair)));
      }
      store_matrices(out + at, pairs);
      if (kept) {
#pragma unroll
        for (int i = 0; i < 4; ++i) pairs[i] = rounded[8 * p + 4 * half + i];
        store_matrices(kept + at, pairs);
      }
    }
  }
};

// The products of a warpgroup, a stage at a time.
template <bool kGrad, int kCluster>
struct Multiplier {
  using Right = std::conditional_t<kGrad, DownColumns<kChunk>, AlongRows<kColumns>>;

  Shared& shared;
  int consumer, lane;
  Turn turn;

  // Products of the next stage as a group: sums = a b or sums += a b.
  template <bool kAdds>
  __device__ __forceinline__ void start(float (&sums)[kColumns / 2]) {
    wait(shared.full[turn.slot], turn.parity);
    const AlongRows<kRows> a(shared.a[turn.slot], consumer * 64);
    const Right b(shared.b[turn.slot]);
    wgmma_fence();
    wgmma<kAdds, kGrad>(sums, a.step(0), b.step(0));
#pragma unroll
    for (int s = 1; s < kChunk / 16; ++s) wgmma<true, kGrad>(sums, a.step(s), b.step(s));
    wgmma_group();
    turn.advance<kStages>();
  }
  // Waits until no more than `left` stages are under way and gives the one before them back.
  template <int left>
  __device__ __forceinline__ void finish() {
    wgmma_wait<left>();
    __syncwarp();
    Barrier& empty = shared.empty[static_cast<unsigned>(turn.slot + kStages - 1 - left) % kStages];
    if constexpr (kCluster == 1) {
      if (lane == 0) arrive(empty);
    } else {
      if (lane < kCluster) arrive_at(empty, lane);
    }
  }
};

template <bool kGrad, int kCluster>
__device__ __forceinline__ void consume(const Args& args, Shared& shared, const Worker& worker) {
  Multiplier<kGrad, kCluster> multiplier{shared, worker.warp * 32 / kWarpgroup, worker.lane, {}};
  const Finisher<kGrad> finisher(args, shared, worker);
  const int often = args.steps / kPieces;  // steps for a piece, and some more at the end
  float sums[kColumns / 2];
  std::uint32_t rounded[kColumns / 4] = {};
  // Before the first tile comes one below C: nothing of it is read or written.
  Place last{args.rows, 0};
  finisher.begin(last);

  for (int item = blockIdx.x / kCluster; item < args.order.items(); item += gridDim.x / kCluster) {
    const Place tile = tile_of<kCluster>(args.order, item);
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      if (p == 0) {
        multiplier.template start<false>(sums);
        finisher.piece(p, rounded, last, &tile);
      } else {
        multiplier.template start<true>(sums);
        finisher.piece(p, rounded, last, &tile);
        multiplier.template finish<1>();
      }
#pragma unroll 1
      for (int more = 1; more < often; ++more) {
        multiplier.template start<true>(sums);
        multiplier.template finish<1>();
      }
    }
#pragma unroll 1
    for (int step = often * kPieces; step < args.steps; ++step) {
      multiplier.template start<true>(sums);
      multiplier.template finish<1>();
    }
    multiplier.template finish<0>();
    settle(sums);
#pragma unroll
    for (int i = 0; i < kColumns / 4; ++i) rounded[i] = pack_bf16(sums[2 * i], sums[2 * i + 1]);
    last = tile;
  }
#pragma unroll
  for (int p = 0; p < kPieces; ++p) finisher.piece(p, rounded, last, nullptr);
  finisher.end();
}

#endif

template <bool kGrad, int kCluster>
__global__ void __launch_bounds__(kThreads, 1) product_kernel(const __grid_constant__ Args args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) std::byte memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory);
  const Worker worker;
  if (threadIdx.x == 0) {
    if (shared_address(&shared) % 1024 != 0) __trap();  // swizzled tiles would be misread
    for (Barrier& barrier : shared.full) init_barrier(barrier, 1);
    for (Barrier& barrier : shared.empty) init_barrier(barrier, kWarps * kCluster);
    for (auto& warp : shared.arrived)
      for (Barrier& barrier : warp) init_barrier(barrier, 1);
    fence_barriers();
  }
  sync_cluster();
  if (worker.warp >= kWarps) {
    keep_registers<kProducerRegisters>();
    if (threadIdx.x % kWarpgroup == 0) produce<kGrad, kCluster>(args, shared);
  } else {
    take_registers<kConsumerRegisters>();
    consume<kGrad, kCluster>(args, shared, worker);
  }
  sync_cluster();  // the other block still writes to this one
#endif
}

}  // namespace infini::hopper::product
