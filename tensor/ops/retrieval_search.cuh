// The search of retrieval_attention(): the places whose keys a query is nearest to.
#pragma once

#include "tensor/ops/cuda_math.cuh"

namespace infini {

// Keys and values as memory_pairs() makes them, and the searches, read by strides.
template <class N>
struct RetrievalReads {
  const N *qkv, *pairs, *local;
  const std::uint8_t* seen;
  const Compute<N>*scale, *gate;
  std::int32_t* chosen;
  int segments, heads, group, width, most;
  bool bypass_empty;
  std::int64_t tokens, places, context;
  std::int64_t leading, pair_leading;

  __device__ const N* query(std::int64_t row, int head) const {
    return qkv + row * leading + head * width;
  }
  // Place 0 of what a segment reads; values follow pair_leading / 2 numbers later.
  __device__ const N* key(std::int64_t segment, int head) const {
    return pairs + (segment / segments * context + segment % segments * tokens) * pair_leading +
           head / group * width;
  }
  __device__ const std::uint8_t* marks(std::int64_t segment) const {
    return seen + (segment / segments * (segments + 1) + segment % segments) * places;
  }
  __device__ std::int32_t* choice(std::int64_t row, int head) const {
    return chosen + (row * heads + head) * most;
  }
};

// The search: a block takes 64 queries of a head past all places, 64 places at a time. Scores are
// products of tiles in registers, staged by 32 columns; then each warp goes through those of its
// eight queries and puts the few that beat the worst of a query's list into it, in the order of
// places, so that the earlier of equal scores stays ahead.
constexpr int kChooseThreads = 256, kSide = 64, kStage = 32, kOwn = 4;
// Staged columns lie this far apart, so that few of those written at once share a bank.
constexpr int kLeading = kSide + 4;

template <class A>
struct NeighbourSearch {
  A *queries, *keys;  // [kStage, kLeading]
  A* scores;          // [kSide, kSide]
  A* best;            // [kSide, n], sorted
  std::int32_t* places;
  int* count;           // [kSide], entries of each list
  std::uint8_t* marks;  // [kSide], whether a place of the tile is seen

  static std::size_t bytes(int most) {
    return (2 * kStage * kLeading + kSide * kSide) * sizeof(A) +
           std::size_t(kSide) * most * (sizeof(A) + sizeof(std::int32_t)) + kSide * sizeof(int) +
           kSide;
  }
  __device__ explicit NeighbourSearch(unsigned char* shared, int most)
      : queries(reinterpret_cast<A*>(shared)),
        keys(queries + kStage * kLeading),
        scores(keys + kStage * kLeading),
        best(scores + kSide * kSide),
        places(reinterpret_cast<std::int32_t*>(best + kSide * most)),
        count(places + kSide * most),
        marks(reinterpret_cast<std::uint8_t*>(count + kSide)) {}

  // By a warp: (score, place) goes behind all entries that are not smaller.
  __device__ void insert(int query, int most, A score, std::int32_t place) {
    const int lane = threadIdx.x % 32, had = count[query];
    A* list = best + query * most;
    std::int32_t* list_places = places + query * most;
    int ahead = 0;
    for (int begin = 0; begin < had; begin += 32) {
      const int i = begin + lane;
      ahead += __popc(__ballot_sync(0xffffffff, i < had && !(score > list[i])));
    }
    // Entries from `ahead` on move by one, the last ones first.
    const int last = had < most ? had : most - 1;
    for (int begin = last - 31; begin + 31 > ahead; begin -= 32) {
      const int i = begin + lane;
      const bool moves = i > ahead && i <= last;
      const A moved = moves ? list[i - 1] : A(0);
      const std::int32_t moved_place = moves ? list_places[i - 1] : 0;
      __syncwarp();
      if (moves) {
        list[i] = moved;
        list_places[i] = moved_place;
      }
      __syncwarp();
    }
    __syncwarp();
    if (lane == 0) {
      list[ahead] = score;
      list_places[ahead] = place;
      count[query] = last + 1;
    }
    __syncwarp();
  }
};

template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kChooseThreads) choose_kernel(RetrievalReads<N> in) {
  extern __shared__ __align__(16) unsigned char shared[];
  NeighbourSearch<A> search(shared, in.most);
  const std::int64_t segment = blockIdx.z, begin = std::int64_t{blockIdx.x} * kSide;
  const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const N* key = in.key(segment, head);
  const std::uint8_t* marks = in.marks(segment);
  if (threadIdx.x < kSide) search.count[threadIdx.x] = 0;

  const int row = threadIdx.x / 16 * kOwn, column = threadIdx.x % 16 * kOwn;
  for (std::int64_t first = 0; first < in.places; first += kSide) {
    bool any = false;
    if (threadIdx.x < kSide) {
      any = first + threadIdx.x < in.places && marks[first + threadIdx.x];
      search.marks[threadIdx.x] = any;
    }
    if (!__syncthreads_or(any)) continue;

    A sums[kOwn][kOwn] = {};
    for (int stage = 0; stage < in.width; stage += kStage) {
      for (int i = threadIdx.x; i < kSide * kStage; i += kChooseThreads) {
        const int r = i / kStage, c = i % kStage;
        const bool inside = stage + c < in.width;
        const std::int64_t t = begin + r, place = first + r;
        search.queries[c * kLeading + r] =
            inside && t < in.tokens ? A(in.query(segment * in.tokens + t, head)[stage + c]) : A(0);
        search.keys[c * kLeading + r] =
            inside && place < in.places ? A(key[place * in.pair_leading + stage + c]) : A(0);
      }
      __syncthreads();
#pragma unroll 4
      for (int c = 0; c < kStage; ++c) {
        A q[kOwn], k[kOwn];
        load_pack<kOwn>(search.queries + c * kLeading + row, q);
        load_pack<kOwn>(search.keys + c * kLeading + column, k);
#pragma unroll
        for (int i = 0; i < kOwn; ++i)
#pragma unroll
          for (int j = 0; j < kOwn; ++j) sums[i][j] += q[i] * k[j];
      }
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
      store_pack<kOwn>(search.scores + (row + i) * kSide + column, sums[i]);
    __syncthreads();

    for (int query = warp; query < kSide; query += kChooseThreads / 32) {
      if (begin + query >= in.tokens) break;
      for (int half = 0; half < kSide; half += 32) {
        const A score = search.scores[query * kSide + half + lane];
        const bool is_seen = search.marks[half + lane];
        // What beats the worst of the list now may not when its turn comes.
        const auto enters = [&] {
          const int had = search.count[query];
          return is_seen && (had < in.most || score > search.best[query * in.most + had - 1]);
        };
        unsigned candidates = __ballot_sync(0xffffffff, enters());
        while (candidates) {
          const int next = __ffs(candidates) - 1;
          search.insert(query, in.most, __shfl_sync(0xffffffff, score, next),
                        static_cast<std::int32_t>(first + half + next));
          candidates = __ballot_sync(0xffffffff, enters() && lane > next);
        }
      }
    }
    __syncthreads();
  }
  __syncthreads();

  for (int i = threadIdx.x; i < kSide * in.most; i += kChooseThreads) {
    const int query = i / in.most, n = i % in.most;
    if (begin + query < in.tokens)
      in.choice(segment * in.tokens + begin + query, head)[n] =
          n < search.count[query] ? search.places[i] : -1;
  }
}

}  // namespace infini
