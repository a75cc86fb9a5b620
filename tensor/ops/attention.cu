// Local attention by cuDNN where it has an engine, else by these kernels, for every type and width.
// A block walks over the tiles of keys that its queries see, or of queries that see its keys.
#include "tensor/ops/attention.h"
#include "tensor/ops/attention_cudnn.h"
#include "tensor/ops/attention_hopper.h"
#include "tensor/ops/attention_tile.cuh"
#include "tensor/ops/launch.cuh"

namespace infini {
namespace {

constexpr int kFewQueries = 16;               // up to here a block for each query beats tiles
constexpr int kFewThreads = 512, kLanes = 8;  // of few_queries_kernel; lanes that share a key

// A block for each tile of queries of a head. Keeps for each row the highest score so far and the
// sum of exponentials relative to it, and scales both down when a higher one comes.
template <class N, int kWidth, int kTall, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    attention_kernel(PackedHeads<N> p, N* output, A* log_sum) {
  using T = AttentionTile<A, kWidth, kTall>;
  extern __shared__ __align__(16) unsigned char shared[];
  A *query = reinterpret_cast<A*>(shared), *other = query + T::kSize, *square = other + T::kSize;
  const int x = threadIdx.x % kSide, y = threadIdx.x / kSide;
  const int segment = blockIdx.x / p.heads, head = blockIdx.x % p.heads;
  const int first = p.first_query + (gridDim.y - 1 - blockIdx.y) * kTall;  // the longest first
  const N* keys = p.rotated + p.key(segment, p.kv_head(head));
  const N* values = p.qkv + p.value(segment, p.kv_head(head));

  T::load(query, p.rotated + p.query(segment, head), p.rotated_leading(), first, p.tokens, p.width);
  typename T::Wide sum = {};
  A highest[T::kEach], total[T::kEach];
#pragma unroll
  for (int i = 0; i < T::kEach; ++i) highest[i] = -INFINITY, total[i] = 0;

  for (int begin = 0; begin < min(first + kTall, p.tokens); begin += kTall) {
    __syncthreads();
    T::load(other, keys, p.rotated_leading(), begin, p.tokens, p.width);
    __syncthreads();
    typename T::Square scores;
    T::dots(query, other, scores);
#pragma unroll
    for (int i = 0; i < T::kEach; ++i) {
      A best = highest[i];
#pragma unroll
      for (int j = 0; j < T::kEach; ++j) {
        if (begin + x + kSide * j > first + y + kSide * i) scores[i][j] = -INFINITY;
        best = max(best, scores[i][j]);
      }
      best = row_max(best);
      const A shrink = exp(p.scale * (highest[i] - best));
      highest[i] = best;
      A part = 0;
#pragma unroll
      for (int j = 0; j < T::kEach; ++j)
        part += scores[i][j] = exp(p.scale * (scores[i][j] - best));
      total[i] = total[i] * shrink + row_sum(part);
#pragma unroll
      for (int c = 0; c < T::kColumns; ++c) sum[i][c] *= shrink;
    }
    T::share(scores, square);
    __syncthreads();
    T::load(other, values, p.qkv_leading(), begin, p.tokens, p.width);
    __syncthreads();
    T::add_product(square, other, sum);
  }

#pragma unroll
  for (int i = 0; i < T::kEach; ++i) {
    const int row = first + y + kSide * i;
    if (log_sum && x == 0 && row < p.tokens)
      log_sum[p.row(segment, head) + row] = p.scale * highest[i] + log(total[i]);
#pragma unroll
    for (int c = 0; c < T::kColumns; ++c) sum[i][c] /= total[i];
  }
  T::store(sum, output + p.y(segment, head), p.y_leading(), first - p.first_query,
           p.tokens - p.first_query, p.width, false);
}

// A block for each query. kLanes threads share a key, so a warp reads four keys at a time; each
// such team keeps its own highest score and sums, which are joined at the end.
template <class N, int kWidth, class A = Compute<N>>
__global__ void __launch_bounds__(kFewThreads)
    few_queries_kernel(PackedHeads<N> p, N* output, A* log_sum) {
  constexpr int kTeams = kFewThreads / kLanes, kEach = kWidth / kLanes, kWarps = kFewThreads / 32;
  __shared__ A sums[kWarps][kWidth], highests[kWarps], totals[kWarps];
  const int segment = blockIdx.x / p.heads, head = blockIdx.x % p.heads;
  const int token = p.first_query + blockIdx.y;
  const int lane = threadIdx.x % kLanes, team = threadIdx.x / kLanes, warp = threadIdx.x / 32;
  const N* query = p.rotated + p.query(segment, head) + token * p.rotated_leading();
  const N* keys = p.rotated + p.key(segment, p.kv_head(head));
  const N* values = p.qkv + p.value(segment, p.kv_head(head));

  // A thread's columns are packs of 4, kLanes packs apart.
  const auto fetch = [&](const N* row, A(&into)[kEach]) {
#pragma unroll
    for (int c = 0; c < kEach; c += 4) {
      const int column = kLanes * c + 4 * lane;
      A pack[4] = {};
      if (p.width % 4 == 0) {
        if (column < p.width) load_pack<4>(row + column, pack);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (column + e < p.width) pack[e] = A(row[column + e]);
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) into[c + e] = pack[e];
    }
  };

  A q[kEach], sum[kEach] = {}, highest = -INFINITY, total = 0;
  fetch(query, q);
  for (int begin = 0; begin <= token; begin += kTeams) {
    const bool seen = begin + team <= token;
    const int key = seen ? begin + team : token;
    A k[kEach], v[kEach], score = 0;
    fetch(keys + key * p.rotated_leading(), k);
    fetch(values + key * p.qkv_leading(), v);
#pragma unroll
    for (int c = 0; c < kEach; ++c) score += q[c] * k[c];
#pragma unroll
    for (int distance = kLanes / 2; distance; distance /= 2)
      score += __shfl_xor_sync(0xffffffff, score, distance);
    const A best = seen ? max(highest, score) : highest;
    const A shrink = best == highest ? A(1) : exp(p.scale * (highest - best));
    const A weight = seen ? exp(p.scale * (score - best)) : A(0);
    highest = best;
    total = total * shrink + weight;
#pragma unroll
    for (int c = 0; c < kEach; ++c) sum[c] = sum[c] * shrink + weight * v[c];
  }

  // Teams of a warp, then warps.
  const A best = warp_max(highest);
  const A factor = highest == best ? A(1) : exp(p.scale * (highest - best));
  total *= factor;
#pragma unroll
  for (int c = 0; c < kEach; ++c) sum[c] *= factor;
#pragma unroll
  for (int distance = kLanes; distance < 32; distance *= 2) {
    total += __shfl_xor_sync(0xffffffff, total, distance);
#pragma unroll
    for (int c = 0; c < kEach; ++c) sum[c] += __shfl_xor_sync(0xffffffff, sum[c], distance);
  }
  if (threadIdx.x % 32 < kLanes) {
    if (lane == 0) highests[warp] = best, totals[warp] = total;
#pragma unroll
    for (int c = 0; c < kEach; ++c) sums[warp][kLanes * (c - c % 4) + 4 * lane + c % 4] = sum[c];
  }
  __syncthreads();
  A top = highests[0], all = 0;
  for (int w = 1; w < kWarps; ++w) top = max(top, highests[w]);
  for (int w = 0; w < kWarps; ++w) all += totals[w] * exp(p.scale * (highests[w] - top));
  for (int c = threadIdx.x; c < p.width; c += kFewThreads) {
    A whole = 0;
    for (int w = 0; w < kWarps; ++w) whole += sums[w][c] * exp(p.scale * (highests[w] - top));
    output[p.y(segment, head) + blockIdx.y * p.y_leading() + c] = N(whole / all);
  }
  if (log_sum && threadIdx.x == 0) log_sum[p.row(segment, head) + token] = p.scale * top + log(all);
}

// D of the softmax's gradient: a warp for each token of a head.
template <class N, class A = Compute<N>>
__global__ void row_dots_kernel(PackedHeads<N> p, const N* y, const N* dy, std::int64_t count,
                                A* dots) {
  const std::int64_t i = std::int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32;
  if (i >= count) return;  // the whole warp
  const int head = i / p.tokens % p.heads;
  const std::int64_t segment = i / p.tokens / p.heads;
  const std::int64_t at = p.y(segment, head) + i % p.tokens * p.y_leading();
  A sum = 0;
  for (int c = threadIdx.x % 32; c < p.width; c += 32) sum += A(y[at + c]) * A(dy[at + c]);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) dots[i] = sum;
}

// A block for each tile of queries of a head.
template <class N, int kWidth, int kTall, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    dquery_kernel(PackedHeads<N> p, const N* dy, const A* log_sum, const A* dots, N* drotated,
                  bool accumulate) {
  using T = AttentionTile<A, kWidth, kTall>;
  extern __shared__ __align__(16) unsigned char shared[];
  A *query = reinterpret_cast<A*>(shared), *dout = query + T::kSize, *key = dout + T::kSize,
    *value = key + T::kSize, *square = value + T::kSize;
  const int x = threadIdx.x % kSide, y = threadIdx.x / kSide;
  const int segment = blockIdx.x / p.heads, head = blockIdx.x % p.heads;
  const int first = (gridDim.y - 1 - blockIdx.y) * kTall;  // the longest first
  const N* keys = p.rotated + p.key(segment, p.kv_head(head));
  const N* values = p.qkv + p.value(segment, p.kv_head(head));

  T::load(query, p.rotated + p.query(segment, head), p.rotated_leading(), first, p.tokens, p.width);
  T::load(dout, dy + p.y(segment, head), p.y_leading(), first, p.tokens, p.width);
  A sums[T::kEach], dot[T::kEach];
#pragma unroll
  for (int i = 0; i < T::kEach; ++i) {
    const int row = first + y + kSide * i;
    sums[i] = row < p.tokens ? log_sum[p.row(segment, head) + row] : A(0);
    dot[i] = row < p.tokens ? dots[p.row(segment, head) + row] : A(0);
  }
  typename T::Wide sum = {};
  for (int begin = 0; begin < min(first + kTall, p.tokens); begin += kTall) {
    __syncthreads();
    T::load(key, keys, p.rotated_leading(), begin, p.tokens, p.width);
    T::load(value, values, p.qkv_leading(), begin, p.tokens, p.width);
    __syncthreads();
    typename T::Square scores, dscores;
    T::dots(query, key, scores);
    T::dots(dout, value, dscores);
#pragma unroll
    for (int i = 0; i < T::kEach; ++i)
#pragma unroll
      for (int j = 0; j < T::kEach; ++j) {
        const bool seen = begin + x + kSide * j <= first + y + kSide * i;
        const A probability = seen ? exp(p.scale * scores[i][j] - sums[i]) : A(0);
        dscores[i][j] = p.scale * probability * (dscores[i][j] - dot[i]);
      }
    T::share(dscores, square);
    __syncthreads();
    T::add_product(square, key, sum);
  }
  T::store(sum, drotated + p.query(segment, head), p.rotated_leading(), first, p.tokens, p.width,
           accumulate);
}

// A block for each tile of keys of a key/value head, which adds up what the heads of its group say
// in their order.
template <class N, int kWidth, int kTall, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    dkey_dvalue_kernel(PackedHeads<N> p, const N* dy, const A* log_sum, const A* dots, N* drotated,
                       bool accumulate_keys, N* dqkv, bool accumulate_values) {
  using T = AttentionTile<A, kWidth, kTall>;
  extern __shared__ __align__(16) unsigned char shared[];
  A *key = reinterpret_cast<A*>(shared), *value = key + T::kSize, *query = value + T::kSize,
    *dout = query + T::kSize, *square = dout + T::kSize, *dsquare = square + T::kSquareSize;
  const int x = threadIdx.x % kSide, y = threadIdx.x / kSide;
  const int segment = blockIdx.x / p.kv_heads, kv_head = blockIdx.x % p.kv_heads;
  const int first = blockIdx.y * kTall, group = p.heads / p.kv_heads;

  T::load(key, p.rotated + p.key(segment, kv_head), p.rotated_leading(), first, p.tokens, p.width);
  T::load(value, p.qkv + p.value(segment, kv_head), p.qkv_leading(), first, p.tokens, p.width);
  typename T::Wide dkey = {}, dvalue = {};
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (int begin = first; begin < p.tokens; begin += kTall) {
      __syncthreads();
      T::load(query, p.rotated + p.query(segment, head), p.rotated_leading(), begin, p.tokens,
              p.width);
      T::load(dout, dy + p.y(segment, head), p.y_leading(), begin, p.tokens, p.width);
      __syncthreads();
      typename T::Square scores, dscores;
      T::dots(key, query, scores);
      T::dots(value, dout, dscores);
#pragma unroll
      for (int j = 0; j < T::kEach; ++j) {
        const int token = begin + x + kSide * j;
        const std::int64_t row = p.row(segment, head) + min(token, p.tokens - 1);
        const A log_of_sum = log_sum[row], dot = dots[row];
#pragma unroll
        for (int i = 0; i < T::kEach; ++i) {
          const bool seen = first + y + kSide * i <= token && token < p.tokens;
          scores[i][j] = seen ? exp(p.scale * scores[i][j] - log_of_sum) : A(0);
          dscores[i][j] = p.scale * scores[i][j] * (dscores[i][j] - dot);
        }
      }
      T::share(scores, square);
      T::share(dscores, dsquare);
      __syncthreads();
      T::add_product(square, dout, dvalue);
      T::add_product(dsquare, query, dkey);
    }
  if (drotated)
    T::store(dkey, drotated + p.key(segment, kv_head), p.rotated_leading(), first, p.tokens,
             p.width, accumulate_keys);
  if (dqkv)
    T::store(dvalue, dqkv + p.value(segment, kv_head), p.qkv_leading(), first, p.tokens, p.width,
             accumulate_values);
}

template <class T, class Args>
PackedHeads<Native<T>> packed_heads(const Args& args, std::int64_t first_query) {
  const HeadLayout& n = args.layout;
  return {.rotated = native<T>(args.rotated),
          .qkv = native<T>(args.qkv),
          .tokens = static_cast<int>(n.tokens),
          .heads = n.heads,
          .kv_heads = n.kv_heads,
          .width = n.head_width,
          .first_query = static_cast<int>(first_query),
          .scale = static_cast<Compute<Native<T>>>(args.scale)};
}

class CudaAttention final : public AttentionKernels {
 public:
  void attention(const Attention& args) const override {
    if (attention_cudnn(args)) return;
    dispatch(args, [&]<class T, int kWidth>() {
      using N = Native<T>;
      using A = Compute<N>;
      constexpr int kTall = kTileRows<A, kWidth, 2>;
      using Tiles = AttentionTile<A, kWidth, kTall>;
      const auto p = packed_heads<T>(args, args.first_query);
      const auto asked = static_cast<unsigned>(p.tokens - p.first_query);
      const unsigned heads = segments(args.layout) * p.heads;
      A* log_sum = args.log_sum ? args.log_sum.template data<A>() : nullptr;
      if (asked <= kFewQueries)
        launch("attention of few queries", few_queries_kernel<N, kWidth>, {heads, asked},
               kFewThreads, 0, p, native<T>(args.y), log_sum);
      else
        launch("attention", attention_kernel<N, kWidth, kTall>, {heads, blocks_for(asked, kTall)},
               kThreads, (2 * Tiles::kSize + Tiles::kSquareSize) * sizeof(A), p, native<T>(args.y),
               log_sum);
    });
  }

  bool attention_grad(const AttentionGrad& args, const TurnBack& back) const override {
    return attention_grad_hopper(args, &back);
  }
  // With P the probabilities and D_r = sum_c dy_rc y_rc:  dS = P (dy V^T - D),  dQ = scale dS K,
  // dK = scale dS^T Q, dV = P^T dy.
  void attention_grad(const AttentionGrad& args) const override {
    if (attention_grad_hopper(args) || attention_grad_cudnn(args)) return;
    dispatch(args, [&]<class T, int kWidth>() {
      using N = Native<T>;
      using A = Compute<N>;
      constexpr int kTall = kTileRows<A, kWidth, 4>;
      using Tiles = AttentionTile<A, kWidth, kTall>;
      const auto p = packed_heads<T>(args, 0);
      const unsigned count = segments(args.layout), tiles = blocks_for(p.tokens, kTall);
      const std::size_t bytes = (4 * Tiles::kSize + 2 * Tiles::kSquareSize) * sizeof(A);
      const N* dy = native<T>(args.dy);
      N *drotated = native<T>(args.drotated.tensor), *dqkv = native<T>(args.dqkv.tensor);
      const A* log_sum = args.log_sum.template data<A>();
      const Tensor row_dots = Tensor::empty_like(args.log_sum);
      A* dots = row_dots.data<A>();
      launch("attention: row sums", row_dots_kernel<N>, blocks_for(row_dots.size(), kThreads / 32),
             kThreads, 0, p, native<T>(args.y), dy, row_dots.size(), dots);
      if (drotated)
        launch("attention: gradient of queries", dquery_kernel<N, kWidth, kTall>,
               {count * p.heads, tiles}, kThreads, bytes, p, dy, log_sum, dots, drotated,
               args.drotated.accumulate);
      if (drotated || dqkv)
        launch("attention: gradient of keys and values", dkey_dvalue_kernel<N, kWidth, kTall>,
               {count * p.kv_heads, tiles}, kThreads, bytes, p, dy, log_sum, dots, drotated,
               args.drotated.accumulate, dqkv, args.dqkv.accumulate);
    });
  }

 private:
  static unsigned segments(const HeadLayout& layout) {
    return static_cast<unsigned>(layout.batch * layout.segments);
  }

  // Calls function with the element type and the least width that kernels are made for.
  template <class Args, class Function>
  static void dispatch(const Args& args, const Function& function) {
    const int width = args.layout.head_width;
    check(width <= 256, "attention: heads of width ", width, ", at most 256 on cuda");
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      if (width <= 64)
        function.template operator()<T, 64>();
      else if (width <= 128)
        function.template operator()<T, 128>();
      else
        function.template operator()<T, 256>();
    });
  }
};

}  // namespace

const AttentionKernels& cuda_attention() {
  static const CudaAttention attention;
  return attention;
}

}  // namespace infini
