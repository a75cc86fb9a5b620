// How the blocks of a team, a cluster, tell each other what they found: by stores into the shared
// memory of all of them, counted by a barrier there. A team meets at one mailbox after another, and
// nobody sends to a mailbox again before all have read it: what is sent then depends on what all
// have sent since.
#pragma once

#include "tensor/ops/decode_ring.cuh"

namespace infini {

constexpr int kTeam = 8;  // blocks

__device__ __forceinline__ int rank_in_team() { return static_cast<int>(blockIdx.x) % kTeam; }

class Mailbox {
 public:
  __device__ Mailbox(std::uint64_t* barrier, int bytes) : barrier_(barrier), bytes_(bytes) {}

  // By one thread, before anyone sends.
  __device__ void init() const {
    init_barrier(barrier_, 1);
    expect_bytes(barrier_, bytes_);
  }
  // Waits for all that the team sends for the `turn`-th time, from 0 on.
  __device__ void wait(int turn, const Patience& patience) const {
    wait_for(barrier_, turn % 2, patience);
    if (threadIdx.x == 0) expect_bytes(barrier_, bytes_);
  }
  // 16 bytes to `to`, an address in this block, of the block of that rank.
  __device__ void send(int rank, const void* to, uint4 words) const {
    store_async(address_in(shared_address(to), rank), words,
                address_in(shared_address(barrier_), rank));
  }
  // A warp's own vectors of 16 bytes, number i to place_of(i) in every block.
  template <class Places>
  __device__ __forceinline__ void send_all(const void* own, int vectors, Places place_of) const {
    __syncwarp();
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x) % 32; i < vectors * kTeam; i += 32)
      send(i % kTeam, place_of(i / kTeam), static_cast<const uint4*>(own)[i / kTeam]);
    __syncwarp();
  }
  __device__ __forceinline__ void send_all(std::byte* to, const void* own, int bytes) const {
    send_all(own, bytes / 16, [&](int i) { return to + 16 * i; });
  }

 private:
  std::uint64_t* barrier_;
  int bytes_;
};

}  // namespace infini
