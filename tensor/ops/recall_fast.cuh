// The kernels of recall.h for bf16 and heads 64 or 128 wide, on tensor cores. All of them walk over
// a run of tiles of one key/value head of one segment, for every query head of its group in turn,
// two blocks to a multiprocessor.
#pragma once

#include "tensor/ops/memory_products.cuh"
#include "tensor/ops/recall.h"

namespace infini {

struct FastReading {
  Heads<Bf16> queries, local;
  const float *matrix, *normalizer, *gate;
  float eps;
  bool bypass_empty;
  int kv_heads, group;
  Runs runs;
};

// Where a block is on its way through the tiles of its run, once for each query head of the group.
// Few registers are left for it.
struct FastWalk {
  const FastReading& args;
  int segment, head, tile, turn = 0;  // the query head in its segment

  __device__ __forceinline__ explicit FastWalk(const FastReading& reading)
      : args(reading),
        segment(blockIdx.x / reading.kv_heads),
        head(first_head()),
        tile(first_tile()) {}

  __device__ __forceinline__ int first_head() const {
    return (blockIdx.x - segment * args.kv_heads) * args.group;
  }
  __device__ __forceinline__ int first_tile() const { return blockIdx.y * args.runs.each; }
  __device__ __forceinline__ int token() const { return tile * kTileTokens; }
  __device__ __forceinline__ bool ends_head() const {
    return tile + 1 == min(first_tile() + args.runs.each, args.runs.tiles);
  }
  __device__ __forceinline__ bool ends() const {
    return ends_head() && head + 1 == first_head() + args.group;
  }
  __device__ __forceinline__ void step() {
    const bool turns = ends_head();
    tile = turns ? first_tile() : tile + 1;
    head += turns;
    turn ^= 1;
    asm volatile("" : "+r"(segment));  // else addresses made of it fill registers from tile to tile
  }
  __device__ __forceinline__ FastWalk next() const {
    FastWalk walk = *this;
    walk.step();
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
  MatrixTile<K> matrix;  // spread
  TokenTile<K> q[2], local[2];
  float inverse[2][kTileTokens];  // 1 / denominator
};

// y = g (q M) / denominator + (1 - g) local. The next tile arrives in shared memory while the
// tensor cores work on one. Bound by memory.
template <int K>
__global__ void __launch_bounds__(kTileThreads, 2)
    fast_recall_kernel(FastReading args, Heads<Bf16> output) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto& s = *reinterpret_cast<FastRecallShared<K>*>(shared);
  using L = Loading<K>;
  using W = Working<K>;
  const int tokens = args.queries.tokens;
  const auto begin = [&](const FastWalk& at) {
    copy_tile<K>(TokenRows(args.queries, at.segment, at.head, L::chunk() * 8), at.token(), tokens,
                 s.q[at.turn]);
    copy_tile<K>(TokenRows(args.local, at.segment, at.head, L::chunk() * 8), at.token(), tokens,
                 s.local[at.turn]);
    copy_async_group();
  };
  FastWalk at(args);
  begin(at);
  float z[8];
  load_pack<8>(args.normalizer + blockIdx.x * K + L::chunk() * 8, z);
  load_state<K, true>(args.matrix + std::int64_t{blockIdx.x} * K * K, s.matrix);
  const bool bypassed = is_bypassed<K>(args);

  for (bool more = true; more; at.step()) {
    more = !at.ends();
    const float gate = gate_of(args, at.head, bypassed);
    copy_async_wait<0>();
#pragma unroll
    for (int i = 0; i < L::kChunks; ++i) {
      uint4& chunk = s.q[at.turn].at(L::row(i), L::chunk());
      float mapped[8];
      map(chunk, true, mapped);
      chunk = pack(mapped);
      const float reading = L::row_sum(dot(mapped, z));
      if (L::chunk() == 0)
        s.inverse[at.turn][L::row(i)] = reciprocal_approx(fmaxf(reading, args.eps));
    }
    __syncthreads();  // the tile is there, and the one before is no longer read
    if (more) begin(at.next());
    float sums[W::kRowTiles][2][8];
    multiply<K, Times::kSpread>(s.q[at.turn], s.matrix, sums);
    const TokenRows y(output, at.segment, at.head, W::column());
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = W::row(m, half);
        const float scale = gate * s.inverse[at.turn][row];
        float values[8];
        unpack(s.local[at.turn].at(row, W::column() / 8), values);
#pragma unroll
        for (int c = 0; c < 8; ++c)
          values[c] = scale * sums[m][half][c] + (1.0f - gate) * values[c];
        if (at.token() + row < tokens)
          *reinterpret_cast<uint4*>(y.at(at.token() + row)) = pack(values);
      }
  }
}

struct FastRecallGrad {
  FastReading from;
  Heads<Bf16> dy, dqueries, dlocal;  // the last two may be empty
  bool add_queries, add_local;
  float *dmatrix, *dnormalizer, *dgate;  // any may be null
  bool add_matrix, add_normalizer, add_gate;
  float *parts, *gate_parts;  // gate_parts [segments, runs, H]
  float* row_dots;            // [segments, H, T]; may be null
};

template <int K>
struct FastRecallGradShared {
  MatrixTile<K> matrix;
  TokenTile<K> q[2], n[2];
  float factor[2][kTileTokens];  // 1 / denominator, 0 where it was clamped
  float partial[Working<K>::kAcross][kTileTokens];
  float z[K];
};

// Asks for the cache lines of a tile.
template <int K>
__device__ __forceinline__ void bring_near(const Heads<Bf16>& heads, const FastWalk& at) {
  constexpr int kLines = K / 64;
  const int token = at.token() + threadIdx.x / kLines, column = threadIdx.x % kLines * 64;
  if (threadIdx.x < kTileTokens * kLines && token < heads.tokens)
    prefetch_line(TokenRows(heads, at.segment, at.head, column).at(token));
}

// dgate (+)= the sum over parts [parts, H], in one block.
__device__ __forceinline__ void sum_gates(const FastRecallGrad& args, int parts) {
  const int heads = args.from.queries.count;
  for (int head = threadIdx.x / 32; head < heads; head += kTileThreads / 32) {
    float sum = 0;
    for (int i = threadIdx.x % 32; i < parts; i += 32)
      sum += __ldcg(args.gate_parts + std::int64_t{i} * heads + head);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) put(args.dgate + head, sum, args.add_gate);
  }
}

// With n = g dy / denominator and W = n M^T: dq = (W + e z) sigma'(Q), dlocal = (1 - g) dy, and, as
// sums over the tokens in registers, dM = q^T n, dz and dgate. Every tile is read and written once.
// While one is worked on, the next arrives: its queries and dy in shared memory, `local` in L2, as
// shared memory is full. Bound by memory.
template <int K>
__global__ void __launch_bounds__(kTileThreads, 2) fast_recall_grad_kernel(FastRecallGrad args) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto& s = *reinterpret_cast<FastRecallGradShared<K>*>(shared);
  using L = Loading<K>;
  using W = Working<K>;
  const FastReading& from = args.from;
  const int tokens = from.queries.tokens, state = blockIdx.x;
  const auto begin = [&](const FastWalk& at) {
    copy_tile<K>(TokenRows(from.queries, at.segment, at.head, L::chunk() * 8), at.token(), tokens,
                 s.q[at.turn]);
    copy_tile<K>(TokenRows(args.dy, at.segment, at.head, L::chunk() * 8), at.token(), tokens,
                 s.n[at.turn]);
    copy_async_group();
    bring_near<K>(from.local, at);
  };
  FastWalk at(from);
  begin(at);
  for (int c = threadIdx.x; c < K; c += kTileThreads) s.z[c] = from.normalizer[state * K + c];
  load_state<K, false>(from.matrix + std::int64_t{state} * K * K, s.matrix);
  const bool bypassed = is_bypassed<K>(from);

  Summing<K> dmatrix;
  float dz[8] = {}, dgate = 0;
  for (bool more = true; more; at.step()) {
    more = !at.ends();
    const float gate = gate_of(from, at.head, bypassed);
    copy_async_wait<0>();
    {
      const TokenRows local(from.local, at.segment, at.head, L::chunk() * 8);
      const TokenRows dlocal(args.dlocal, at.segment, at.head, L::chunk() * 8);
      uint4 kept[L::kChunks];
      float inverse[L::kChunks], z[8];
#pragma unroll
      for (int i = 0; i < L::kChunks; ++i)
        kept[i] = local.chunk(min(at.token() + L::row(i), tokens - 1));
      load_pack<8>(s.z + L::chunk() * 8, z);
#pragma unroll
      for (int i = 0; i < L::kChunks; ++i) {
        uint4& chunk = s.q[at.turn].at(L::row(i), L::chunk());
        const bool valid = at.token() + L::row(i) < tokens;
        float mapped[8];
        map(chunk, valid, mapped);
        chunk = pack(mapped);
        const float reading = L::row_sum(dot(mapped, z));
        inverse[i] = reciprocal_approx(fmaxf(reading, from.eps));
        if (L::chunk() == 0) s.factor[at.turn][L::row(i)] = reading > from.eps ? inverse[i] : 0;
      }
#pragma unroll
      for (int i = 0; i < L::kChunks; ++i) {
        uint4& chunk = s.n[at.turn].at(L::row(i), L::chunk());
        const int token = at.token() + L::row(i);
        const float open = token < tokens ? gate : 0;
        float upstream[8], other[8];
        unpack(chunk, upstream);
        unpack(kept[i], other);
        dgate -= open * dot(upstream, other);
#pragma unroll
        for (int c = 0; c < 8; ++c) {
          other[c] = (1.0f - gate) * upstream[c];
          upstream[c] *= open * inverse[i];
        }
        chunk = pack(upstream);
        if (token < tokens && dlocal.first) put_chunk(dlocal.at(token), other, args.add_local);
      }
    }
    __syncthreads();  // the tile is there, and the one before is no longer read
    if (more) {
      begin(at.next());
      if (args.add_local && args.dlocal.first) bring_near<K>(args.dlocal, at.next());
    }
    if (args.add_queries && args.dqueries.first) bring_near<K>(args.dqueries, at);
    dmatrix.add(s.q[at.turn], s.n[at.turn]);
    TokenGradTile<K> gradient;
    multiply<K, Times::kTransposed>(s.n[at.turn], s.matrix, gradient.w);
    dgate += gradient.dots(s.q[at.turn], s.partial);
    __syncthreads();
    const TokenRows dqueries(args.dqueries, at.segment, at.head, W::column());
    gradient.finish(s.q[at.turn], s.partial, s.factor[at.turn], 1.0f, s.z, dz,
                    [&](int m, int half, float(&dq)[8]) {
                      const int token = at.token() + W::row(m, half);
                      if (dqueries.first && token < tokens)
                        put_chunk(dqueries.at(token), dq, args.add_queries);
                    });
    if (at.ends_head()) {
      const float sum = block_sum<kTileThreads>(dgate);
      const std::int64_t part = std::int64_t{at.segment} * gridDim.y + blockIdx.y;
      if (threadIdx.x == 0)
        args.gate_parts[part * from.queries.count + at.head] = (1.0f - gate) * sum;
      dgate = 0;
    }
  }
  if (args.dgate && comes_last(0, gridDim.x * gridDim.y))
    sum_gates(args, gridDim.x / from.kv_heads * gridDim.y);
  if (!args.dmatrix && !args.dnormalizer) return;
  if (!add_up_runs(args.parts, dmatrix.numbers(), dz)) return;
  if (args.dmatrix) dmatrix.store(args.dmatrix + std::int64_t{state} * K * K, args.add_matrix);
  if (!args.dnormalizer) return;
  const float sum = sum_columns<K, W::kRowsOfColumn>(dz, W::row_of_column(), W::column(),
                                                     reinterpret_cast<float*>(&s.q));
  if (threadIdx.x < K) put(args.dnormalizer + state * K + threadIdx.x, sum, args.add_normalizer);
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

  static void recall_grad(const RecallKernels::RecallGrad& args,
                          void (*kernel)(FastRecallGrad) = fast_recall_grad_kernel<K>,
                          std::size_t shared_bytes = sizeof(FastRecallGradShared<K>)) {
    const HeadLayout& n = args.layout;
    const FastReading from = reading_of(args);
    const Tensor parts =
        parts_of(n.batch * n.segments * n.kv_heads, from.runs, K * K / kTileThreads + 8);
    const Tensor gate_parts = Tensor::empty(Shape{n.batch * n.segments * from.runs.count, n.heads},
                                            DType::kFloat32, Device::kCuda);
    launch("memory_recall_grad", kernel, blocks(n, from.runs), kTileThreads, shared_bytes,
           FastRecallGrad{.from = from,
                          .dy = rows_of(args.dy, n),
                          .dqueries = heads_in<BFloat16>(args.dqkv.tensor, n, n.query_columns()),
                          .dlocal = rows_of(args.dlocal.tensor, n),
                          .add_queries = args.dqkv.accumulate,
                          .add_local = args.dlocal.accumulate,
                          .dmatrix = data(args.dmatrix.tensor),
                          .dnormalizer = data(args.dnormalizer.tensor),
                          .dgate = data(args.dgate.tensor),
                          .add_matrix = args.dmatrix.accumulate,
                          .add_normalizer = args.dnormalizer.accumulate,
                          .add_gate = args.dgate.accumulate,
                          .parts = data(parts),
                          .gate_parts = data(gate_parts),
                          .row_dots = data(args.row_dots)});
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
            .kv_heads = n.kv_heads,
            .group = n.group(),
            .runs = Runs(n.batch * n.segments * n.kv_heads, n.tokens)};
  }
  static float* data(const Tensor& tensor) { return tensor ? tensor.data<float>() : nullptr; }
  static Heads<Bf16> rows_of(const Tensor& rows, const HeadLayout& n) {
    return heads_in<BFloat16>(rows, n, {0, n.query_width()});
  }
  static dim3 blocks(const HeadLayout& n, const Runs& runs) {
    return {static_cast<unsigned>(n.batch * n.segments * n.kv_heads),
            static_cast<unsigned>(runs.count)};
  }
};

}  // namespace infini
