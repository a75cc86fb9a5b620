// How the tokens of a head are spread over several blocks, and what these sum added up in order.
#pragma once

#include <algorithm>

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/launch.cuh"
#include "tensor/tensor.h"

namespace infini {

constexpr int kTileTokens = 64, kTileThreads = 256;
constexpr std::int64_t kMostMeetings = 1 << 15;

// Tokens of a head are cut into `count` runs of `each` tiles when there are too few heads to fill a
// device. A function of the shape alone, so that sums over runs are the same on every device.
struct Runs {
  int tiles, each = 1, count;

  Runs(std::int64_t heads, std::int64_t tokens) {
    constexpr std::int64_t kPlaces = 264, kStart = 2;  // blocks at a time; tiles a start is worth
    tiles = static_cast<int>((tokens + kTileTokens - 1) / kTileTokens);
    std::int64_t best = 0;
    for (int n = 1; n <= std::min(tiles, 32); ++n) {
      if (n > 1 && heads * n > kMostMeetings) break;
      const int length = (tiles + n - 1) / n;
      const std::int64_t waves = (heads * n + kPlaces - 1) / kPlaces,
                         time = waves * (length + kStart);
      if (n > 1 && time >= best) continue;
      best = time;
      each = length;
    }
    count = (tiles + each - 1) / each;
  }
};

// How many blocks have come to each meeting; zeros between kernels.
static __device__ unsigned arrivals[kMostMeetings];

// Whether this block comes last of `blocks` to a meeting. It may then read what all of them wrote
// before they came, past L1. Every thread must call it.
__device__ __forceinline__ bool comes_last(int meeting, unsigned blocks) {
  __threadfence();
  __syncthreads();
  bool last = false;
  if (threadIdx.x == 0) {
    last = atomicAdd(&arrivals[meeting], 1) == blocks - 1;
    if (last) arrivals[meeting] = 0;
  }
  last = __syncthreads_or(last);
  __threadfence();
  return last;
}

// The numbers of each thread of a block, in a part of their own: pack i of all threads side by
// side.
template <bool kStore, int n>
__device__ __forceinline__ void exchange(float (&numbers)[n], float* part) {
#pragma unroll
  for (int i = 0; i < n / 4; ++i) {
    auto* at = reinterpret_cast<float4*>(part) + i * kTileThreads + threadIdx.x;
    if constexpr (kStore) {
      __stcg(at, {numbers[4 * i], numbers[4 * i + 1], numbers[4 * i + 2], numbers[4 * i + 3]});
    } else {
      const float4 more = __ldcg(at);
      numbers[4 * i] += more.x;
      numbers[4 * i + 1] += more.y;
      numbers[4 * i + 2] += more.z;
      numbers[4 * i + 3] += more.w;
    }
  }
}

// Adds up the numbers of all runs of a head, blocks [heads, runs], in one of them: true there.
// Neighbours are added two by two by the one that comes later. Which one that is changes nothing:
// the tree is fixed, and a + b is b + a. parts [heads, runs, numbers of a block].
template <int... n>
__device__ __forceinline__ bool add_up_runs(float* parts, float (&... numbers)[n]) {
  const int runs = gridDim.y, first = blockIdx.x * runs;
  const auto exchange_all = [&]<bool kStore>(int run) {
    float* part = parts + std::int64_t{first + run} * (n + ...) * kTileThreads;
    ((exchange<kStore>(numbers, part), part += n * kTileThreads), ...);
  };
  for (int length = 1; length < runs; length *= 2) {
    const int mine = blockIdx.y / length * length, other = mine ^ length;
    if (other >= runs) continue;
    const int meeting = first + max(mine, other);  // never 0
    const bool waits =
        threadIdx.x == 0 && *static_cast<volatile unsigned*>(&arrivals[meeting]) == 0;
    if (__syncthreads_or(waits)) exchange_all.template operator()<true>(mine);
    if (!comes_last(meeting, 2)) return false;
    exchange_all.template operator()<false>(other);
  }
  return true;
}

// Where the runs of the heads leave `numbers` of each thread to be added up; none for one run.
inline Tensor parts_of(std::int64_t heads, const Runs& runs, std::int64_t numbers) {
  if (runs.count == 1) return {};
  return Tensor::empty(Shape{heads * runs.count, kTileThreads * numbers}, DType::kFloat32,
                       Device::kCuda);
}

}  // namespace infini
