#include <cmath>

#include "tensor/ops/attention_scores.cuh"
#include "tensor/ops/launch.cuh"
#include "tensor/ops/shared_numbers.cuh"

namespace infini {
namespace {

constexpr int kThreads = 128;
constexpr int kWarpPlaces = 1024;  // rows of more scores take a block instead of a warp

// Scores and ReadMarks as kernels read them.
template <class A>
struct ScoresGiven {
  AttentionChunk chunk;
  unsigned rows;
  const A *content, *position, *content_added, *position_added;
  const std::uint8_t* seen;
  int marked, segments, borders;
  bool own;
  A scale;
};

template <bool kDistances, class A>
struct ScoreRow {
  const A *content, *position, *content_added, *position_added;
  const std::uint8_t* seen;
  int marked;
  int reach;  // the last place that may be read, at distance 0
  A scale;

  __device__ ScoreRow(const ScoresGiven<A>& in, unsigned row) : marked(in.marked), scale(in.scale) {
    const AttentionChunk& chunk = in.chunk;
    const QueryAt at = chunk.query(row);
    const unsigned unit = at.unit;
    const std::int64_t places = chunk.padded_places;
    seen = in.seen + std::int64_t{unit / in.segments * in.borders + unit % in.segments} * marked;
    reach = in.own ? chunk.places - chunk.queries + at.i : chunk.places - 1;
    content = in.content + row * places;
    if constexpr (kDistances) {
      position = in.position + row * places;
      content_added = in.content_added + row / chunk.queries * places;
      position_added = in.position_added + at.head * places;
    }
  }
  __device__ bool reads(int j) const { return j <= reach && (j >= marked || __ldg(seen + j) != 0); }
  // Of any place, so that loads need not wait for marks.
  __device__ A score(int j) const {
    A sum = __ldg(content + j);
    if constexpr (kDistances) {
      const int distance = max(reach - j, 0);
      sum +=
          __ldg(content_added + j) + __ldg(position + distance) + __ldg(position_added + distance);
    }
    return scale * sum;
  }
};

template <int threads, class A>
__device__ A team_sum(A value) {
  if constexpr (threads == 32)
    return warp_sum(value);
  else
    return block_sum<threads>(value);
}
template <int threads, class A>
__device__ A team_max(A value) {
  if constexpr (threads == 32)
    return warp_max(value);
  else
    return block_max<threads>(value);
}

// Fills held [P'] with e^(score - the highest one), 0 where nothing is read, each thread every
// threads-th, and returns what makes probabilities of them.
template <int threads, bool kDistances, class A>
__device__ A exponentials(const ScoreRow<kDistances, A>& row, int places, A* held) {
  const int thread = threadIdx.x % threads;
  A highest = -INFINITY, sum = 0;
#pragma unroll 4
  for (int j = thread; j < places; j += threads) {
    const A any = row.score(j), score = row.reads(j) ? any : A(-INFINITY);
    held[j] = score;
    highest = score > highest ? score : highest;
  }
  highest = team_max<threads>(highest);
#pragma unroll 4
  for (int j = thread; j < places; j += threads) {
    const A score = held[j], value = score == A(-INFINITY) ? A(0) : exp(score - highest);
    held[j] = value;
    sum += value;
  }
  sum = team_sum<threads>(sum);
  return sum == 0 ? A(0) : A(1) / sum;
}

// A warp or a block for each row, `threads` in all. Scores are read once: the row stays in shared
// memory, of which a thread touches only what is its own.
template <int threads, bool kDistances, class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads) softmax_kernel(ScoresGiven<A> in, N* probabilities) {
  const unsigned team = threadIdx.x / threads, row = blockIdx.x * (kThreads / threads) + team;
  if (row >= in.rows) return;
  const int places = in.chunk.padded_places;
  A* held = shared_numbers<A>() + team * places;
  const A inverse = exponentials<threads>(ScoreRow<kDistances, A>(in, row), places, held);
  probabilities += std::int64_t{row} * places;
#pragma unroll 4
  for (int j = threadIdx.x % threads; j < places; j += threads)
    probabilities[j] = N(held[j] * inverse);
}

// As softmax_kernel; distances is null without positions.
template <int threads, bool kDistances, class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    softmax_grad_kernel(ScoresGiven<A> in, const A* dprobabilities, N* probabilities, N* dscores,
                        N* ddistances) {
  const unsigned team = threadIdx.x / threads, row = blockIdx.x * (kThreads / threads) + team;
  if (row >= in.rows) return;
  const int places = in.chunk.padded_places, thread = threadIdx.x % threads;
  A* held = shared_numbers<A>() + team * places;
  const ScoreRow<kDistances, A> scores(in, row);
  const A inverse = exponentials<threads>(scores, places, held);
  const std::int64_t at = std::int64_t{row} * places;
  dprobabilities += at;
  A mean = 0;
#pragma unroll 4
  for (int j = thread; j < places; j += threads) mean += held[j] * __ldg(dprobabilities + j);
  mean = team_sum<threads>(mean) * inverse;
#pragma unroll 4
  for (int j = thread; j < places; j += threads) {
    const A probability = held[j] * inverse;
    const N dscore = N(in.scale * probability * (__ldg(dprobabilities + j) - mean));
    probabilities[at + j] = N(probability);
    dscores[at + j] = dscore;
    // Places after the last one read have no distance; the zeros of distances that are too far
    // come from them.
    if constexpr (kDistances) ddistances[at + (j <= scores.reach ? scores.reach - j : j)] = dscore;
  }
}

template <class A>
ScoresGiven<A> given(const AttentionChunk& chunk, const ReadMarks& marks, const Scores& scores,
                     double scale) {
  const auto numbers = [](const Tensor& tensor) { return tensor ? tensor.data<A>() : nullptr; };
  return {.chunk = chunk,
          .rows = static_cast<unsigned>(chunk.query_rows()),
          .content = numbers(scores.content),
          .position = numbers(scores.position),
          .content_added = numbers(scores.content_added),
          .position_added = numbers(scores.position_added),
          .seen = marks.seen.data<std::uint8_t>(),
          .marked = static_cast<int>(marks.marked),
          .segments = static_cast<int>(marks.segments),
          .borders = static_cast<int>(marks.borders),
          .own = marks.own,
          .scale = static_cast<A>(scale)};
}

// Calls start.operator()<threads, whether there are distances>(blocks, bytes of shared memory).
template <class A, class Start>
void by_row(const AttentionChunk& chunk, bool distances, Start start) {
  const auto in_teams = [&]<int threads>() {
    constexpr int kTeams = kThreads / threads;
    const dim3 blocks(blocks_for(chunk.query_rows(), kTeams));
    const std::size_t bytes = kTeams * chunk.padded_places * sizeof(A);
    if (distances)
      start.template operator()<threads, true>(blocks, bytes);
    else
      start.template operator()<threads, false>(blocks, bytes);
  };
  if (chunk.padded_places <= kWarpPlaces)
    in_teams.template operator()<32>();
  else
    in_teams.template operator()<kThreads>();
}

}  // namespace

ContentReads::ContentReads(const AttentionChunk& chunk, const HeadRows& query_rows,
                           const HeadRows& key_rows, const HeadRows& value_rows,
                           const ReadMarks& may_read)
    : queries(pack_queries(chunk, query_rows, query_rows.rows.dtype())),
      keys(pack_places(chunk, {.own = key_rows})),
      values(pack_places(chunk, {.own = value_rows})),
      marks(may_read),
      scores{.content = multiplied({.a = queries, .b = keys, .transpose_b = true},
                                   accumulator_of(queries.dtype()))} {}

Tensor softmax_rows(const AttentionChunk& chunk, const ReadMarks& marks, const Scores& scores,
                    double scale, DType type) {
  const Tensor probabilities = Tensor::empty(chunk.score_table(), type, Device::kCuda);
  dispatch_float(type, [&]<class T>() {
    using N = Native<T>;
    using A = Compute<N>;
    by_row<A>(chunk, static_cast<bool>(scores.position),
              [&]<int threads, bool kDistances>(dim3 blocks, std::size_t bytes) {
                launch("attention_softmax", softmax_kernel<threads, kDistances, N>, blocks,
                       kThreads, bytes, given<A>(chunk, marks, scores, scale),
                       native<T>(probabilities));
              });
  });
  return probabilities;
}

ScoresGrad softmax_rows_grad(const AttentionChunk& chunk, const ReadMarks& marks,
                             const Scores& scores, double scale, const Tensor& dprobabilities,
                             DType type) {
  const auto table = [&] { return Tensor::empty(chunk.score_table(), type, Device::kCuda); };
  const ScoresGrad made{.probabilities = table(),
                        .dscores = table(),
                        .ddistances = scores.position ? table() : Tensor{}};
  dispatch_float(type, [&]<class T>() {
    using N = Native<T>;
    using A = Compute<N>;
    by_row<A>(chunk, static_cast<bool>(scores.position),
              [&]<int threads, bool kDistances>(dim3 blocks, std::size_t bytes) {
                launch("attention_softmax_grad", softmax_grad_kernel<threads, kDistances, N>,
                       blocks, kThreads, bytes, given<A>(chunk, marks, scores, scale),
                       dprobabilities.data<A>(), native<T>(made.probabilities),
                       native<T>(made.dscores), native<T>(made.ddistances));
              });
  });
  return made;
}

}  // namespace infini
