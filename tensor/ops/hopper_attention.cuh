// What the attention kernels for Hopper share: who works on what, and how sums go to memory. Tiles
// are 64 tokens of one head of one segment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/hopper_copy.cuh"
#include "tensor/ops/hopper_wgmma.cuh"
#include "tensor/ops/instructions.cuh"

namespace infini::hopper {

constexpr int kTile = 64;                                // tokens, the rows of a warpgroup
constexpr int kConsumers = 2;                            // warpgroups that compute
constexpr int kBlock = kConsumers * kTile;               // tokens of an item of work
constexpr int kThreads = (kConsumers + 1) * kWarpgroup;  // the last warpgroup copies
// Every thread says that it is done with a slot: no slower than every warp, and racecheck, which
// does not see that a warp's barrier comes before what one lane says for all, can follow.
constexpr int kReleases = kConsumers * kWarpgroup;
// A block may share out what its threads have at first and no more: what is missing is waited for.
constexpr int kConsumerRegisters = 240, kProducerRegisters = 24;
static_assert(kConsumers * kConsumerRegisters + kProducerRegisters <=
              (kConsumers + 1) * (65536 / kThreads / 8 * 8));

template <int kWidth>
using Tile = __nv_bfloat16[kTile * kWidth];
template <int kWidth>
constexpr int kTileBytes = sizeof(Tile<kWidth>);

// Blocks of tokens of all heads. Thread blocks fetch the next item whenever they can hold one more.
// kAbreast heads at a time, so that their tiles are in the L2 cache when the next thread block asks
// for them, and of those the longest items first, so that all end together.
struct Schedule {
  static constexpr int kAbreast = 16;

  int first, heads, blocks;  // `blocks` of each head from the first on
  int first_kv_head;         // its key head
  int* next;                 // 0 at first

  struct Item {
    int head, rank;  // rank 0 is longest
  };
  __device__ int fetch() const {
    const int item = atomicAdd(next, 1);
    return item < heads * blocks ? item : -1;
  }
  __device__ Item operator[](int item) const {
    const int begin = item / (kAbreast * blocks) * kAbreast, rest = item - begin * blocks;
    const int abreast = min(kAbreast, heads - begin);
    return {first + begin + rest % abreast, rest / abreast};
  }
};

// Gradients of heads side by side, in rows that are `leading` apart.
struct GradRows {
  __nv_bfloat16* out = nullptr;  // nowhere when null
  std::int64_t leading = 0;
  bool accumulate = false;
  // Cosines and sines of the angles by which the heads of token 0 were turned, [tokens, K]; null
  // where they were not. They are turned back.
  const float* angles = nullptr;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ __forceinline__ int lane() { return threadIdx.x % 32; }
// The same in all threads of a warpgroup, as the compiler can see.
__device__ __forceinline__ int warpgroup() {
  return __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
}
// The first row of this thread's sums, of the 64 of its warpgroup. The second is 8 below.
__device__ __forceinline__ int own_row() { return threadIdx.x % kWarpgroup / 32 * 16 + lane() / 4; }
// The first of this thread's two columns among 8.
__device__ __forceinline__ int own_column() { return lane() % 4 * 2; }

// This thread reads a slot no more.
__device__ __forceinline__ void release(Barrier& empty) { arrive(empty); }

__device__ __forceinline__ float exp2_approx(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

template <int n>
__device__ __forceinline__ void clear(float (&sums)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) sums[i] = 0;
}

template <class Shared>
__device__ __forceinline__ void init_barriers(Shared& shared) {
  if (threadIdx.x == 0) {
    if (shared_address(&shared) % 1024 != 0) __trap();  // swizzled tiles would be misread
    for (Barrier& barrier : shared.full) init_barrier(barrier, 1);
    for (Barrier& barrier : shared.block_full) init_barrier(barrier, 1);
    for (Barrier& barrier : shared.empty) init_barrier(barrier, kReleases);
    for (Barrier& barrier : shared.block_empty) init_barrier(barrier, kReleases);
    fence_barriers();
  }
  __syncthreads();
}

// Waits for room and announces the next item; -1 where there is none.
template <class Shared>
__device__ __forceinline__ int next_item(const Schedule& schedule, Shared& shared, Turn block,
                                         int bytes) {
  wait(shared.block_empty[block.slot], block.parity ^ 1);
  const int item = schedule.fetch();
  shared.items[block.slot] = item;
  if (item < 0)
    arrive(shared.block_full[block.slot]);
  else
    arrive_for(shared.block_full[block.slot], bytes);
  return item;
}

// A tile in registers, as the left factor of products over its columns.
template <int kWidth>
__device__ __forceinline__ void load_factor(const __nv_bfloat16* tile,
                                            LeftFactor (&factor)[kWidth / 16]) {
  const int row = threadIdx.x % kWarpgroup / 32 * 16 + lane() % 16;
#pragma unroll
  for (int s = 0; s < kWidth / 16; ++s) {
    const int piece = (s % 4 * 2 + lane() / 16) ^ row % 8;
    load_matrices<false>(tile + (s / 4 * kTile + row) * kChunk + piece * 8, factor[s]);
  }
}

// Turns a pair (i, i + K/2) of a row back.
__device__ __forceinline__ void turn_back(float& low, float& high, float cosine, float sine) {
  const float turned = low * cosine + high * sine;
  high = high * cosine - low * sine;
  low = turned;
}

// The cosines and sines of a row, those of this thread's columns.
template <int kWidth>
struct Angles {
  float2 cosines[kWidth / 16], sines[kWidth / 16];

  __device__ __forceinline__ void read(const float* row, int j) {
    const auto* const at = reinterpret_cast<const float2*>(row + 8 * j + own_column());
    cosines[j] = __ldg(at);
    sines[j] = __ldg(at + kWidth / 4);
  }
  // Turns what they say of row h of the sums.
  __device__ __forceinline__ void turn_back(float (&sums)[kWidth / 2], int h, int j) const {
    float *low = sums + 4 * j + 2 * h, *high = low + kWidth / 4;
    hopper::turn_back(low[0], high[0], cosines[j].x, sines[j].x);
    hopper::turn_back(low[1], high[1], cosines[j].y, sines[j].y);
  }
};
// Reads and turns row h of the sums back, with few registers.
template <int kWidth>
__device__ __forceinline__ void turn_back(float (&sums)[kWidth / 2], const float* row, int h) {
#pragma unroll
  for (int j = 0; j < kWidth / 16; ++j) {
    Angles<kWidth> angles;
    angles.read(row, j);
    angles.turn_back(sums, h, j);
  }
}

// Lane i of four lanes side by side has word j of row i, then word i of row j of a 4 x 4 matrix.
__device__ __forceinline__ void transpose_quad(std::uint32_t (&words)[4]) {
#pragma unroll
  for (int distance = 1; distance <= 2; distance *= 2) {
    const bool upper = lane() & distance;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int first = distance == 1 ? 2 * i : i, second = first + distance;
      const std::uint32_t sent = upper ? words[first] : words[second];
      const std::uint32_t received = __shfl_xor_sync(0xffffffff, sent, distance);
      if (upper)
        words[first] = received;
      else
        words[second] = received;
    }
  }
}

// The two rows of a tile of a segment, of `tokens` tokens, that a thread writes: columns [column,
// column + K), 16 bytes of every 64, from token `token` on.
template <int kWidth>
class OwnRows {
 public:
  __device__ __forceinline__ OwnRows(const GradRows& to, int segment, int token, int tokens,
                                     int column)
      : to_(to) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      row_[h] = token + own_row() + 8 * h;
      inside_[h] = to.out && row_[h] < tokens;
      out_[h] = to.out + (std::int64_t{segment} * tokens + row_[h]) * to.leading + column +
                8 * (lane() % 4);
    }
  }

  // What will be added to is brought into the L2 cache while the sums are still being made: at
  // their end everybody would wait for it.
  __device__ __forceinline__ void expect() const {
    if (!to_.accumulate) return;
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int part = 0; part < kParts; part += 2)
        if (inside_[h]) prefetch_line(out_[h] + 32 * part);
  }

  using Stood = uint4[2][kWidth / 32];

  // Writes `scale` times the sums, turned back and added where asked. Four lanes exchange what they
  // hold so that each writes 16 bytes.
  __device__ __forceinline__ void store(float (&sums)[kWidth / 2], float scale) const {
    if (!to_.out) return;
    Stood stood;
    read(stood);
#pragma unroll
    for (int h = 0; h < 2; ++h)
      if (to_.angles && inside_[h])
        turn_back<kWidth>(sums, to_.angles + std::int64_t{row_[h]} * kWidth, h);
    write(sums, scale, stood);
  }

  // The same with what the sums meet read before, by who has registers to spare.
  struct Met {
    Stood stood;
    Angles<kWidth> angles[2];
  };
  __device__ __forceinline__ void read(Met& met) const {
    read(met.stood);
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int j = 0; j < kWidth / 16; ++j)
        if (to_.angles && inside_[h])
          met.angles[h].read(to_.angles + std::int64_t{row_[h]} * kWidth, j);
  }
  __device__ __forceinline__ void store(float (&sums)[kWidth / 2], float scale,
                                        const Met& met) const {
    if (!to_.out) return;
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int j = 0; j < kWidth / 16; ++j)
        if (to_.angles && inside_[h]) met.angles[h].turn_back(sums, h, j);
    write(sums, scale, met.stood);
  }

 private:
  static constexpr int kParts = kWidth / 32;

  __device__ __forceinline__ void read(Stood& stood) const {
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int part = 0; part < kParts; ++part)
        stood[h][part] = to_.accumulate && inside_[h]
                             ? *reinterpret_cast<const uint4*>(out_[h] + 32 * part)
                             : uint4{};
  }
  __device__ __forceinline__ void write(const float (&sums)[kWidth / 2], float scale,
                                        const Stood& stood) const {
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        const uint4& word = stood[h][part];
        std::uint32_t words[4] = {word.x, word.y, word.z, word.w};
        if (to_.accumulate) transpose_quad(words);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float* const pair = sums + 16 * part + 4 * j + 2 * h;
          const float low = __uint_as_float(words[j] << 16);
          const float high = __uint_as_float(words[j] & 0xffff0000);
          words[j] = pack_bf16(scale * pair[0] + low, scale * pair[1] + high);
        }
        transpose_quad(words);
        if (inside_[h])
          *reinterpret_cast<uint4*>(out_[h] + 32 * part) =
              make_uint4(words[0], words[1], words[2], words[3]);
      }
  }

  const GradRows& to_;
  __nv_bfloat16* out_[2];
  int row_[2];
  bool inside_[2];
};

#endif

}  // namespace infini::hopper
