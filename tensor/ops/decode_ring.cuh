// How the decoding kernel brings matrices near: one warp of a block copies into a ring of stages in
// shared memory, whatever comes next in an order that does not depend on results, while the others
// consume. So memory stays busy while blocks wait for each other.
#pragma once

#include "tensor/ops/decode_wait.cuh"
#include "tensor/ops/instructions.cuh"

namespace infini {

constexpr int kConsumerWarps = 8, kConsumers = 32 * kConsumerWarps;
constexpr int kDecodeThreads = kConsumers + 32;  // the last warp copies

// Rows of a matrix come in pieces of 2 KB. A row in a stage is 16 bytes apart from the end of the
// one before, so that 8 rows at the same column lie in different banks.
constexpr int kOctet = 8;  // rows of a stage
constexpr int kPieceBytes = 2048, kRowPad = 16, kRowStride = kPieceBytes + kRowPad;
constexpr int kStageBytes = 17 * 1024;
static_assert(kOctet * kRowStride <= kStageBytes);

// The consumers alone.
__device__ __forceinline__ void sync_consumers() { named_barrier(1, kConsumers); }

// The stages as one side sees them; every warp of a side keeps its own.
class Ring {
 public:
  __device__ Ring(std::byte* stages, std::uint64_t* barriers, int count, Patience patience)
      : stages_(stages),
        full_(barriers),
        empty_(barriers + count),
        count_(count),
        patience_(patience) {}

  // By one thread, before anyone uses the ring.
  __device__ void init() const {
    for (int i = 0; i < count_; ++i) {
      init_barrier(full_ + i, 1);
      init_barrier(empty_ + i, kConsumerWarps);
    }
    publish_barriers();
  }

  // The producer's warp: waits until the next stage is free, which `bytes` will then fill.
  __device__ std::byte* claim(int bytes) const {
    wait(empty_ + slot_, phase_ ^ 1);
    if (threadIdx.x % 32 == 0) expect_bytes(full_ + slot_, bytes);
    __syncwarp();
    return stages_ + slot_ * kStageBytes;
  }
  // Addresses and bytes are multiples of 16.
  __device__ void copy(std::byte* to, const void* from, int bytes, std::uint64_t policy) const {
    copy_bulk(to, from, bytes, full_ + slot_, policy);
  }

  // A consumer's warp: waits for the contents of the next stage.
  __device__ const std::byte* acquire() const {
    wait(full_ + slot_, phase_);
    return stages_ + slot_ * kStageBytes;
  }
  __device__ void release() {
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive(empty_ + slot_);
    advance();
  }

  __device__ void advance() {
    if (++slot_ < count_) return;
    slot_ = 0;
    phase_ ^= 1;
  }

 private:
  __device__ void wait(std::uint64_t* barrier, unsigned phase) const {
    // Each try takes a while by itself.
    for (unsigned tries = 0; !has_passed(barrier, phase) && patience_.lasts(16 * tries + 15);
         ++tries) {
    }
  }

  std::byte* stages_;
  std::uint64_t *full_, *empty_;
  int count_, slot_ = 0;
  unsigned phase_ = 0;
  Patience patience_;
};

}  // namespace infini
