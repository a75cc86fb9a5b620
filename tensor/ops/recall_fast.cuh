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

// Where a block is: item i is a tile of one of the query heads.
struct FastItems {
  int first_head, first_tile, tiles, count;

  __device__ __forceinline__ FastItems(const FastReading& args)
      : first_head(blockIdx.x * args.group),
        first_tile(blockIdx.y * args.runs.each),
        tiles(min(args.runs.each, args.runs.tiles - first_tile)),
        count(args.group * tiles) {}
  __device__ __forceinline__ int head(int item) const { return first_head + item / tiles; }
  __device__ __forceinline__ int token(int item) const {
    return (first_tile + item % tiles) * kTileTokens;
  }
};

// sigmoid(gate) of a query head, 0 where the memory counts as empty. Every thread must call it.
template <int K>
__device__ __forceinline__ bool is_bypassed(const FastReading& args) {
  const bool written = threadIdx.x < K && args.normalizer[blockIdx.x * K + threadIdx.x] != 0;
  return !__syncthreads_or(written) && args.bypass_empty;
}
__device__ __forceinline__ float gate_of(const FastReading& args, int head, bool bypassed) {
  return bypassed ? 0 : 1.0f / (1.0f + expf(-args.gate[head % args.queries.count]));
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
  const FastItems items(args);
  const int tokens = args.queries.tokens;
  float z[8];
  load_pack<8>(args.normalizer + blockIdx.x * K + L::chunk() * 8, z);
  const bool bypassed = is_bypassed<K>(args);

  HeldTile<K> held;
  const auto begin = [&](int item) {
    held.load(TokenRows<Bf16>(args.queries, items.head(item)), items.token(item), tokens, nullptr);
  };
  const auto finish = [&](int item) {
#pragma unroll
    for (int i = 0; i < L::kChunks; ++i) {
      float mapped[8];
      held.map_chunk(i, mapped);
      s.q[item % 2].at(L::row(i), L::chunk()) = pack(mapped);
      const float reading = L::row_sum(dot(mapped, z));
      if (L::chunk() == 0) s.inverse[item % 2][L::row(i)] = 1.0f / fmaxf(reading, args.eps);
    }
    __syncthreads();
  };

  begin(0);
  load_transposed_state<K, false>(args.matrix + std::int64_t{blockIdx.x} * K * K, s.transposed);
  finish(0);
  for (int item = 0; item < items.count; ++item) {
    if (item + 1 < items.count) begin(item + 1);
    const int head = items.head(item), first_token = items.token(item);
    const TokenRows<Bf16> local(args.local, head), y(output, head);
    uint4 kept[W::kRowTiles][2] = {};
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        if (first_token + W::row(m, half) < tokens)
          kept[m][half] = local.chunk(first_token + W::row(m, half), W::column());

    float sums[W::kRowTiles][2][8];
    multiply_rows<K>(s.q[item % 2], s.transposed, sums);
    const float gate = gate_of(args, head, bypassed);
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = W::row(m, half);
        const float scale = gate * s.inverse[item % 2][row];
        float values[8];
        unpack(kept[m][half], values);
#pragma unroll
        for (int c = 0; c < 8; ++c)
          values[c] = scale * sums[m][half][c] + (1.0f - gate) * values[c];
        if (first_token + row < tokens)
          put_chunk(y.at(first_token + row, W::column()), values, false);
      }
    if (item + 1 < items.count) finish(item + 1);
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
__device__ __forceinline__ void bring_near(const FastRecallGrad& args, int head, int first_token) {
  constexpr int kLines = K / 64;
  const int row = threadIdx.x / kLines, column = threadIdx.x % kLines * 64;
  if (row >= kTileTokens || first_token + row >= args.dy.tokens) return;
  prefetch_line(TokenRows<Bf16>(args.from.queries, head).at(first_token + row, column));
  prefetch_line(TokenRows<Bf16>(args.from.local, head).at(first_token + row, column));
  prefetch_line(TokenRows<Bf16>(args.dy, head).at(first_token + row, column));
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
  const FastItems items(from);
  const int tokens = from.queries.tokens, state = blockIdx.x, run = blockIdx.y;
  const int heads = from.queries.count;
  for (int c = threadIdx.x; c < K; c += kTileThreads) s.z[c] = from.normalizer[state * K + c];
  const bool bypassed = is_bypassed<K>(from);
  load_state<K>(from.matrix + std::int64_t{state} * K * K, s.matrix);

  Summing<K> dmatrix;
  float dz[8] = {}, dgate = 0;
  for (int item = 0; item < items.count; ++item) {
    const int turn = item % 2, head = items.head(item), first_token = items.token(item);
    const float gate = gate_of(from, head, bypassed);
    {
      const TokenRows<Bf16> queries(from.queries, head), local(from.local, head);
      const TokenRows<Bf16> dy(args.dy, head), dlocal(args.dlocal, head);
      float z[8];
      load_pack<8>(s.z + L::chunk() * 8, z);
#pragma unroll
      for (int i = 0; i < L::kChunks; ++i) {
        const int row = L::row(i), token = first_token + row, column = L::chunk() * 8;
        const bool valid = token < tokens;
        uint4 raw[3] = {};
        if (valid) {
          raw[0] = queries.chunk(token, column);
          raw[1] = dy.chunk(token, column);
          raw[2] = local.chunk(token, column);
        }
        float mapped[8], upstream[8], kept[8];
        map(raw[0], valid, mapped);
        s.q[turn].at(row, L::chunk()) = pack(mapped);
        const float reading = L::row_sum(dot(mapped, z));
        const float inverse = 1.0f / fmaxf(reading, from.eps);
        if (L::chunk() == 0) s.factor[turn][row] = reading > from.eps ? inverse : 0;
        unpack(raw[1], upstream);
        unpack(raw[2], kept);
        dgate -= gate * dot(upstream, kept);
#pragma unroll
        for (int c = 0; c < 8; ++c) {
          kept[c] = (1.0f - gate) * upstream[c];
          upstream[c] *= gate * inverse;
        }
        s.n.at(row, L::chunk()) = pack(upstream);
        if (valid && dlocal.first) put_chunk(dlocal.at(token, column), kept, args.add_local);
      }
    }
    __syncthreads();
    if (item + 1 < items.count) bring_near<K>(args, items.head(item + 1), items.token(item + 1));
    dmatrix.add(s.q[turn], s.n);
    TokenGradTile<K> gradient;
    multiply_rows<K>(s.n, s.matrix, gradient.w);
    dgate += gradient.dots(s.q[turn], s.partial);
    __syncthreads();
    gradient.finish(s.q[turn], s.partial, s.factor[turn], 1.0f, s.z,
                    TokenRows<Bf16>(args.dqueries, head), first_token, tokens, args.add_queries,
                    dz);
    if ((item + 1) % items.tiles == 0) {  // the last of its head
      const float sum = block_sum<kTileThreads>(dgate);
      const std::int64_t part = std::int64_t{head / heads} * gridDim.y + run;
      if (threadIdx.x == 0) args.dgate[part * heads + head % heads] = (1.0f - gate) * sum;
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
