// How the decoding kernel brings matrices near: some warps of a block copy tiles into a ring in
// shared memory, whatever comes next in an order that does not depend on results, while the others
// consume. So memory stays busy while blocks wait for each other.
#pragma once

#include "tensor/ops/decode_wait.cuh"
#include "tensor/ops/instructions.cuh"

namespace infini {

constexpr int kConsumerWarps = 8, kConsumers = 32 * kConsumerWarps;
// Lanes of a warp start copies one after the other, so the rows of a tile are shared out to warps.
constexpr int kCopiers = 3;
// First the consumers, then the warp of norms and those that copy.
constexpr int kDecodeThreads = kConsumers + 32 + 32 * kCopiers;

constexpr int kTiles = 16;             // at most at a time
constexpr int kTileBytes = 40 * 1024;  // at most of a tile
constexpr int kTileAlignment = 128;
constexpr int kShortRow = 512;  // bytes from which on the copy engine copies rows faster

// The consumers alone.
__device__ __forceinline__ void sync_consumers() { named_barrier(1, kConsumers); }

// The consumers and the warp that finds what the norm multiplies their sums with.
__device__ __forceinline__ void meet_norm() { named_barrier(2, kConsumers + 32); }

// Waits for the end of a phase. Each try takes a while by itself. The loop is elsewhere: what is
// fetched between steps is to be short.
static __device__ __noinline__ void wait_long(std::uint64_t* barrier, unsigned parity,
                                              Patience patience) {
  for (unsigned tries = 0;
       !__all_sync(kAllLanes, has_passed(barrier, parity)) && patience.lasts(16 * tries + 15);
       ++tries) {
  }
}
__device__ __forceinline__ void wait_for(std::uint64_t* barrier, unsigned parity,
                                         const Patience& patience) {
  if (!__all_sync(kAllLanes, has_passed(barrier, parity))) wait_long(barrier, parity, patience);
}

struct Ring {
  std::byte* bytes;
  int capacity;
  std::uint64_t *full, *empty;  // [kTiles] barriers
  Patience patience;

  // By one thread, before anyone uses the ring.
  __device__ void init() const {
    for (int i = 0; i < kTiles; ++i) {
      init_barrier(full + i, 32 * kCopiers);
      init_barrier(empty + i, kConsumers);
    }
  }
};

// Where tiles lie: one after the other, from the beginning again where one does not fit. Both sides
// come to the same places by themselves.
class TilePlaces {
 public:
  static __device__ int room(int bytes) {
    return (bytes + kTileAlignment - 1) / kTileAlignment * kTileAlignment;
  }
  // Returns the offset of the next tile, and what stays unused before it.
  __device__ int next(int bytes, int capacity, int& unused) {
    // Nothing is unused where the tile before ended with the ring.
    const bool fits = end_ + room(bytes) <= capacity;
    unused = fits ? 0 : capacity - end_;
    const int begin = fits ? end_ : 0;
    end_ = begin + room(bytes);
    return begin;
  }

 private:
  int end_ = 0;
};

// A copying warp's side; all of them take every tile in turn and copy a part of it.
class Producer {
 public:
  __device__ explicit Producer(const Ring& ring) : ring_(ring) {}

  // Of the threads of all copying warps; `spread`: neighbours in different warps.
  static constexpr int kThreads = 32 * kCopiers;
  static __device__ int thread() {
    return static_cast<int>(threadIdx.x) - (kDecodeThreads - kThreads);
  }
  static __device__ int spread() { return thread() % 32 * kCopiers + thread() / 32; }

  // Waits until there is room for a tile and returns it.
  __device__ std::byte* claim(int bytes) {
    int unused;
    const int at = places_.next(bytes, ring_.capacity, unused);
    claimed_ += unused + TilePlaces::room(bytes);
    while (claimed_ - freed_ > ring_.capacity || tile_ - oldest_ == kTiles) {
      wait_for(ring_.empty + oldest_ % kTiles, oldest_ / kTiles % 2, ring_.patience);
      freed_ = end_of(oldest_++);
    }
    if (static_cast<int>(threadIdx.x) % 32 == tile_ % kTiles) end_ = claimed_;
    return ring_.bytes + at;
  }
  // Addresses and bytes are multiples of 16.
  __device__ void copy(std::byte* to, const void* from, int bytes, std::uint64_t policy) const {
    copy_bulk(to, from, bytes, ring_.full + tile_ % kTiles, policy);
  }
  // All lanes, after the copies of `bytes` by this warp.
  __device__ void commit(int bytes) {
    std::uint64_t* const full = ring_.full + tile_++ % kTiles;
    threadIdx.x % 32 == 0 ? expect_bytes(full, bytes) : arrive(full);
  }
  // All threads, instead of the two: `rows` rows of so many bytes each, `pitch` apart, go `stride`
  // apart. The copy engine takes some 40 clocks for a row, however short; threads take 16 bytes
  // each.
  __device__ void copy_rows(std::byte* to, int stride, const void* from, std::int64_t pitch,
                            int rows, int bytes, std::uint64_t policy) {
    const int packs = bytes / 16, rows_at_once = kThreads / packs, rest = kThreads % packs;
    int row = thread() / packs, pack = thread() % packs;
    const auto* const source = static_cast<const std::byte*>(from);
#pragma unroll 4
    while (row < rows) {
      copy_pack(to + row * stride + pack * 16, source + row * pitch + pack * 16, policy);
      row += rows_at_once, pack += rest;
      if (pack >= packs) ++row, pack -= packs;
    }
    arrive_after_packs(ring_.full + tile_++ % kTiles);
  }

 private:
  __device__ int end_of(int tile) const { return __shfl_sync(kAllLanes, end_, tile % kTiles); }

  const Ring& ring_;
  TilePlaces places_;
  int tile_ = 0, oldest_ = 0;    // numbers: the next, not yet free
  int claimed_ = 0, freed_ = 0;  // bytes since the beginning
  int end_ = 0;                  // of the tile of this lane
};

// A consuming warp's side; every warp takes all tiles in turn.
class Consumer {
 public:
  __device__ explicit Consumer(const Ring& ring) : ring_(ring) {}

  // Waits for the next tile, for which the producer claimed so many bytes.
  __device__ const std::byte* acquire(int bytes) {
    int unused;
    const int at = places_.next(bytes, ring_.capacity, unused);
    wait_for(ring_.full + slot_, parity_, ring_.patience);
    return ring_.bytes + at;
  }
  __device__ void release() {
    arrive(ring_.empty + slot_);
    if (++slot_ < kTiles) return;
    slot_ = 0;
    parity_ ^= 1;
  }

 private:
  const Ring& ring_;
  TilePlaces places_;
  int slot_ = 0;
  unsigned parity_ = 0;
};

}  // namespace infini
