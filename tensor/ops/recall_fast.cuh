// The kernels of recall.h for bf16 and heads 64 or 128 wide, on tensor cores. All of them walk over
// a run of tiles of one key/value head of one segment, for every query head of its group in turn,
// two blocks to a multiprocessor.
#pragma once

#include "tensor/ops/memory_tiles.cuh"
#include "tensor/ops/recall.h"

namespace infini {

struct FastReading {
  Heads<Bf16> queries, local;
  const float *matrix, *normalizer, *gate;
  float eps;
  bool bypass_empty;
  int group;
  Runs runs;
};

// Where a block is on its way through the tiles of its run, once for each query head of the group.
struct FastWalk {
  int segment, head, tile;  // the query head in its segment
  int first_tile, last_tile, last_head, turn = 0;

  __device__ __forceinline__ explicit FastWalk(const FastReading& args) {
    const int kv_heads = args.queries.count / args.group;
    segment = blockIdx.x / kv_heads;
    head = blockIdx.x % kv_heads * args.group;
    tile = first_tile = blockIdx.y * args.runs.each;
    last_tile = min(first_tile + args.runs.each, args.runs.tiles) - 1;
    last_head = head + args.group - 1;
  }
  __device__ __forceinline__ int token() const { return tile * kTileTokens; }
  __device__ __forceinline__ bool ends_head() const { return tile == last_tile; }
  __device__ __forceinline__ bool ends() const { return ends_head() && head == last_head; }
  __device__ __forceinline__ FastWalk next() const {
    FastWalk walk = *this;
    walk.tile = ends_head() ? first_tile : tile + 1;
    walk.head += ends_head();
    walk.turn ^= 1;
    return walk;
  }
};

// Whether the memory is empty and gates then count as closed. Every thread must call it.
template <int K>
__device__ __forceinline__ bool is_bypassed(const FastReading& args) {
  const bool written = threadIdx.x < K && args.normalizer[blockIdx.x * K + threadIdx.x] != 0;
  return !__syncthreads_or(written) && args.bypass_empty;
}
// sigmoid(gate) of a query head.
__device__ __forceinline__ float gate_of(const FastReading& args, int head, bool bypassed) {
  return bypassed ? 0 : 1.0f / (1.0f + expf(-args.gate[head]));
}

template <int K>
struct FastRecallShared {
  Tile<K, K> transposed;
  Tile<kTileTokens, K> q[2];
  float inverse[2][kTileTokens];  // 1 / denominator
};

// y = g (q M) / denominator + (1 - g) local. The next tile of queries waits in registers while the
// tensor cores work on one, and so does `local` of this one. Bound by memory.
template <int K>
__global__ void __launch_bounds__(kTileThreads, 2)
    fast_recall_kernel(FastReading args, Heads<Bf16> output) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto& s = *reinterpret_cast<FastRecallShared<K>*>(shared);
  using L = Loading<K>;
  using W = Working<K>;
  const int tokens = args.queries.tokens;
  float z[8];
  load_pack<8>(args.normalizer + blockIdx.x * K + L::chunk() * 8, z);
  const bool bypassed = is_bypassed<K>(args);

  HeldTile<K> held;
  const auto begin = [&](const FastWalk& at) {
    held.load(TokenRows(args.queries, at.segment, at.head, L::chunk() * 8), at.token(), tokens);
  };
  const auto finish = [&](const FastWalk& at) {
#pragma unroll
    for (int i = 0; i < L::kChunks; ++i) {
      float mapped[8];
      held.map_chunk(i, mapped);
      s.q[at.turn].at(L::row(i), L::chunk()) = pack(mapped);
      const float reading = L::row_sum(dot(mapped, z));
      if (L::chunk() == 0)
        s.inverse[at.turn][L::row(i)] = reciprocal_approx(fmaxf(reading, args.eps));
    }
    __syncthreads();
  };

  FastWalk at(args);
  begin(at);
  load_transposed_state<K, false>(args.matrix + std::int64_t{blockIdx.x} * K * K, s.transposed);
  finish(at);
  for (bool more = true; more; at = at.next()) {
    more = !at.ends();
    if (more) begin(at.next());
    const TokenRows local(args.local, at.segment, at.head, W::column());
    const TokenRows y(output, at.segment, at.head, W::column());
    uint4 kept[W::kRowTiles][2];
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        kept[m][half] = local.chunk(min(at.token() + W::row(m, half), tokens - 1));

    float sums[W::kRowTiles][2][8];
    multiply_rows<K>(s.q[at.turn], s.transposed, sums);
    const float gate = gate_of(args, at.head, bypassed);
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = W::row(m, half);
        const float scale = gate * s.inverse[at.turn][row];
        float values[8];
        unpack(kept[m][half], values);
#pragma unroll
        for (int c = 0; c < 8; ++c)
          values[c] = scale * sums[m][half][c] + (1.0f - gate) * values[c];
        if (at.token() + row < tokens) put_chunk(y.at(at.token() + row), values, false);
      }
    if (more) finish(at.next());
  }
}

struct FastRecallGrad {
  FastReading from;
  Heads<Bf16> dy, dqueries, dlocal;  // the last two may be empty
  bool add_queries, add_local;
  float *dmatrix, *dnormalizer;  // of the first run, or null
  std::int64_t matrix_size, normalizer_size;
  bool add_matrix, add_normalizer;
  float* dgate;  // [segments, runs, H]
};

template <int K>
struct FastRecallGradShared {
  Tile<K, K> matrix;
  Tile<kTileTokens, K> q[2], n;
  float factor[2][kTileTokens];  // 1 / denominator, 0 where it was clamped
  float partial[Working<K>::kAcross][kTileTokens];
  float z[K];
};

// Asks for the cache lines of a tile of queries, local and dy.
template <int K>
__device__ __forceinline__ void bring_near(const FastRecallGrad& args, const FastWalk& at) {
  constexpr int kLines = K / 64;
  const int token = at.token() + threadIdx.x / kLines, column = threadIdx.x % kLines * 64;
  if (threadIdx.x >= kTileTokens * kLines || token >= args.dy.tokens) return;
  prefetch_line(TokenRows(args.from.queries, at.segment, at.head, column).at(token));
  prefetch_line(TokenRows(args.from.local, at.segment, at.head, column).at(token));
  prefetch_line(TokenRows(args.dy, at.segment, at.head, column).at(token));
}

// With n = g dy / denominator and W = n M^T: dq = (W + e z) sigma'(Q), dlocal = (1 - g) dy, and, as
// sums over the tokens in registers, dM = q^T n, dz and dgate. Every tile is read and written once;
// registers are full, so the next one is only brought near. Bound by memory.
template <int K>
__global__ void __launch_bounds__(kTileThreads, 2) fast_recall_grad_kernel(FastRecallGrad args) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto& s = *reinterpret_cast<FastRecallGradShared<K>*>(shared);
  using L = Loading<K>;
  using W = Working<K>;
  const FastReading& from = args.from;
  const int tokens = from.queries.tokens, state = blockIdx.x, run = blockIdx.y;
  for (int c = threadIdx.x; c < K; c += kTileThreads) s.z[c] = from.normalizer[state * K + c];
  const bool bypassed = is_bypassed<K>(from);
  load_state<K>(from.matrix + std::int64_t{state} * K * K, s.matrix);

  Summing<K> dmatrix;
  float dz[8] = {}, dgate = 0;
  FastWalk at(from);
  for (bool more = true; more; at = at.next()) {
    more = !at.ends();
    const float gate = gate_of(from, at.head, bypassed);
    {
      const TokenRows queries(from.queries, at.segment, at.head, L::chunk() * 8);
      const TokenRows local(from.local, at.segment, at.head, L::chunk() * 8);
      const TokenRows dy(args.dy, at.segment, at.head, L::chunk() * 8);
      const TokenRows dlocal(args.dlocal, at.segment, at.head, L::chunk() * 8);
      float z[8];
      load_pack<8>(s.z + L::chunk() * 8, z);
      uint4 raw[2][3];
      const auto load = [&](int i) {
        const int token = min(at.token() + L::row(i), tokens - 1);
        raw[i % 2][0] = queries.chunk(token);
        raw[i % 2][1] = dy.chunk(token);
        raw[i % 2][2] = local.chunk(token);
      };
      load(0);
#pragma unroll
      for (int i = 0; i < L::kChunks; ++i) {
        const int row = L::row(i), token = at.token() + row;
        const bool valid = token < tokens;
        if (i + 1 < L::kChunks) load(i + 1);  // while this one is worked on
        float mapped[8], upstream[8], kept[8];
        map(raw[i % 2][0], valid, mapped);
        s.q[at.turn].at(row, L::chunk()) = pack(mapped);
        const float reading = L::row_sum(dot(mapped, z));
        const float inverse = reciprocal_approx(fmaxf(reading, from.eps));
        if (L::chunk() == 0) s.factor[at.turn][row] = reading > from.eps ? inverse : 0;
        unpack(raw[i % 2][1], upstream);
        unpack(raw[i % 2][2], kept);
        const float open = valid ? gate : 0;
        dgate -= open * dot(upstream, kept);
#pragma unroll
        for (int c = 0; c < 8; ++c) {
          kept[c] = (1.0f - gate) * upstream[c];
          upstream[c] *= open * inverse;
        }
        s.n.at(row, L::chunk()) = pack(upstream);
        if (valid && dlocal.first) put_chunk(dlocal.at(token), kept, args.add_local);
      }
    }
    __syncthreads();
    if (more) bring_near<K>(args, at.next());
    dmatrix.add(s.q[at.turn], s.n);
    TokenGradTile<K> gradient;
    multiply_rows<K>(s.n, s.matrix, gradient.w);
    dgate += gradient.dots(s.q[at.turn], s.partial);
    __syncthreads();
    gradient.finish(s.q[at.turn], s.partial, s.factor[at.turn], 1.0f, s.z,
                    TokenRows(args.dqueries, at.segment, at.head, W::column()), at.token(), tokens,
                    args.add_queries, dz);
    if (at.ends_head()) {
      const float sum = block_sum<kTileThreads>(dgate);
      const std::int64_t part = std::int64_t{at.segment} * gridDim.y + run;
      if (threadIdx.x == 0) args.dgate[part * from.queries.count + at.head] = (1.0f - gate) * sum;
      dgate = 0;
    }
  }
  if (args.dmatrix)
    dmatrix.store(args.dmatrix + run * args.matrix_size + std::int64_t{state} * K * K,
                  args.add_matrix);
  if (args.dnormalizer)
    sum_columns<K, kTileThreads / 4 / W::kAcross>(
        dz, W::first_row() / (16 * W::kRowTiles) * 8 + threadIdx.x % 32 / 4, W::column(),
        reinterpret_cast<float*>(&s.q), args.dnormalizer + run * args.normalizer_size + state * K,
        args.add_normalizer);
}

// RecallKernels where has_fast_kernels().
template <int K>
class FastRecall {
 public:
  static void recall(const RecallKernels::Recall& args) {
    const FastReading from = reading_of(args);
    launch("memory_recall", fast_recall_kernel<K>, blocks(args.layout, from.runs), kTileThreads,
           sizeof(FastRecallShared<K>), from, rows_of(args.y, args.layout));
  }

  // The gates' gradients are left as parts to be added up: dgate [parts, H].
  static Tensor recall_grad(const RecallKernels::RecallGrad& args) {
    const HeadLayout& n = args.layout;
    const FastReading from = reading_of(args);
    const RunSums dmatrix(args.dmatrix, from.runs.count);
    const RunSums dnormalizer(args.dnormalizer, from.runs.count);
    const Tensor dgate = Tensor::empty(Shape{n.batch * n.segments * from.runs.count, n.heads},
                                       DType::kFloat32, Device::kCuda);
    launch("memory_recall_grad", fast_recall_grad_kernel<K>, blocks(n, from.runs), kTileThreads,
           sizeof(FastRecallGradShared<K>),
           FastRecallGrad{.from = from,
                          .dy = rows_of(args.dy, n),
                          .dqueries = heads_in<BFloat16>(args.dqkv.tensor, n, n.query_columns()),
                          .dlocal = rows_of(args.dlocal.tensor, n),
                          .add_queries = args.dqkv.accumulate,
                          .add_local = args.dlocal.accumulate,
                          .dmatrix = dmatrix.data(),
                          .dnormalizer = dnormalizer.data(),
                          .matrix_size = dmatrix.size(),
                          .normalizer_size = dnormalizer.size(),
                          .add_matrix = dmatrix.accumulate(),
                          .add_normalizer = dnormalizer.accumulate(),
                          .dgate = dgate.data<float>()});
    dmatrix.add_up("memory_recall_grad");
    dnormalizer.add_up("memory_recall_grad");
    return dgate;
  }

 private:
  template <class Args>
  static FastReading reading_of(const Args& args) {
    const HeadLayout& n = args.layout;
    return {.queries = heads_in<BFloat16>(args.qkv, n, n.query_columns()),
            .local = rows_of(args.local, n),
            .matrix = args.matrix.template data<float>(),
            .normalizer = args.normalizer.template data<float>(),
            .gate = args.gate.template data<float>(),
            .eps = static_cast<float>(args.options.eps),
            .bypass_empty = args.options.bypass_empty,
            .group = n.group(),
            .runs = Runs(n.batch * n.segments * n.kv_heads, n.tokens)};
  }
  static Heads<Bf16> rows_of(const Tensor& rows, const HeadLayout& n) {
    return heads_in<BFloat16>(rows, n, {0, n.query_width()});
  }
  static dim3 blocks(const HeadLayout& n, const Runs& runs) {
    return {static_cast<unsigned>(n.batch * n.segments * n.kv_heads),
            static_cast<unsigned>(runs.count)};
  }
};

}  // namespace infini
