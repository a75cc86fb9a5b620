// How threads of the decoding kernel wait: for copies into shared memory at barriers there, and for
// numbers of other blocks at the numbers themselves. A number that has not come is kEmpty, which no
// result is; so there is no flag beside it and no fence, and a word is whole or absent.
// All lanes of a warp wait together and by votes: lanes that leave a loop one by one stay apart,
// and each shuffle after that takes hundreds of clocks.
#pragma once

#include "tensor/ops/decode_instructions.cuh"

namespace infini {

constexpr unsigned kAllLanes = 0xffffffff;

// Gives up after some seconds, or soon once anyone has: a mistake must not hang the device. What is
// computed after that is of no use, and `status` says so.
class Patience {
 public:
  __device__ explicit Patience(int* status) : status_(status), began_(nanoseconds()) {}

  __device__ __forceinline__ bool lasts(unsigned tries) const {
    return tries % 256 != 255 || __all_sync(kAllLanes, lasts(status_, began_));
  }

 private:
  static constexpr std::uint64_t kMost = 2'000'000'000;  // for the whole kernel

  static __device__ __noinline__ bool lasts(int* status, std::uint64_t began) {
    if (load_relaxed(status) != 0) return false;
    if (nanoseconds() - began < kMost) return true;
    store_relaxed(status, 1);
    return false;
  }

  int* status_;
  std::uint64_t began_;
};

constexpr std::uint32_t kEmpty = 0xffffffff;  // a NaN that no instruction makes

__device__ __forceinline__ void publish(std::uint32_t* to, std::uint32_t word) {
  store_relaxed(to, word == kEmpty ? 0x7fffffffu : word);
}
__device__ __forceinline__ void publish(std::uint32_t* to, float value) {
  publish(to, __float_as_uint(value));
}

__device__ __forceinline__ bool has_come(uint4 w) {
  return w.x != kEmpty && w.y != kEmpty && w.z != kEmpty && w.w != kEmpty;
}

// Reads words[i] from `from` + i `step` until it has come, for the first `count` i of this lane.
// They were read before.
template <int most>
__device__ __forceinline__ void await(const uint4* from, int step, int count, uint4 (&words)[most],
                                      const Patience& patience) {
  for (unsigned tries = 0;; ++tries) {
    bool missing[most], any = false;
#pragma unroll
    for (int i = 0; i < most; ++i) any |= missing[i] = i < count && !has_come(words[i]);
    if (!__any_sync(kAllLanes, any) || !patience.lasts(tries)) return;
#pragma unroll
    for (int i = 0; i < most; ++i)
      if (missing[i]) words[i] = load_relaxed(from + i * step);
  }
}

// e^x and 1 / (1 + e^-x) as exactly as elements of N can show.
template <class N>
__device__ __forceinline__ float exp_of(float x) {
  return sizeof(N) == 2 ? exp_approx(x) : expf(x);
}
template <class N>
__device__ __forceinline__ float sigmoid_of(float x) {
  return sizeof(N) == 2 ? reciprocal_approx(1 + exp_approx(-x)) : 1 / (1 + expf(-x));
}

template <class N>
__device__ __forceinline__ float rounded(float value) {
  return float(N(value));
}

}  // namespace infini
