// The kernels of memory.h for bf16 and heads 64 or 128 wide, on tensor cores. All of them walk over
// a run of tiles of one key/value head of one segment, two blocks to a multiprocessor.
#pragma once

#include "tensor/ops/memory.h"
#include "tensor/ops/memory_products.cuh"

namespace infini {

struct FastSums {
  MappedHeads<Bf16> keys;
  Heads<Bf16> values;
  const float* normalizer;  // of the overlap
  float eps;
  Runs runs;
  float *matrix, *vector, *parts;
};

// How many tiles are on their way or in work, and how many numbers a thread adds up.
template <int K, bool kOverlap>
struct FastSumming {
  static constexpr int kStages = kOverlap ? 4 : 3;
  static constexpr std::size_t kShared = (kOverlap ? 1 : 2) * kStages * sizeof(TokenTile<K>);
  static constexpr int kNumbers = K * K / kTileThreads + (kOverlap ? 0 : 8);
};

// U = sigma(K)^T V and u, or the overlap x^T x with x = k / sqrt(max(k z, eps)): sums over tokens
// in registers, while the next tiles are on their way. Bound by memory, the overlap by shared
// memory.
template <int K, bool kOverlap>
__global__ void __launch_bounds__(kTileThreads, 2) fast_sums_kernel(FastSums args) {
  extern __shared__ __align__(16) unsigned char shared[];
  constexpr int kStages = FastSumming<K, kOverlap>::kStages;
  auto* x = reinterpret_cast<TokenTile<K>*>(shared);
  auto* y = kOverlap ? x : x + kStages;
  using L = Loading<K>;
  const int head = blockIdx.x, tokens = args.keys.heads.tokens;
  const int first = blockIdx.y * args.runs.each,
            last = min(first + args.runs.each, args.runs.tiles);
  const int segment = head / args.keys.heads.count, in_segment = head % args.keys.heads.count;
  const TokenRows keys(args.keys.heads, segment, in_segment, L::chunk() * 8);
  const TokenRows values(args.values, segment, in_segment, L::chunk() * 8);
  const std::uint8_t* keep = args.keys.keep_of(head);

  const auto begin = [&](int tile, int turn) {
    if (tile < last) {
      copy_tile<K>(keys, tile * kTileTokens, tokens, x[turn]);
      if (!kOverlap) copy_tile<K>(values, tile * kTileTokens, tokens, y[turn]);
    }
    copy_async_group();
  };
#pragma unroll
  for (int i = 0; i + 1 < kStages; ++i) begin(first + i, i);
  Marks<K> marks;
  marks.load(first * kTileTokens, tokens, keep);
  float column[8] = {};  // u of this thread's tokens; for the overlap, z
  if (kOverlap) load_pack<8>(args.normalizer + head * K + L::chunk() * 8, column);

  Summing<K> sums;
  for (int tile = first, turn = 0; tile < last; ++tile) {
    copy_async_wait<kStages - 2>();
#pragma unroll
    for (int i = 0; i < L::kChunks; ++i) {
      uint4& chunk = x[turn].at(L::row(i), L::chunk());
      float mapped[8];
      map(chunk, marks.valid(i), mapped);
      const float scale = kOverlap ? rsqrtf(fmaxf(L::row_sum(dot(mapped, column)), args.eps)) : 1;
#pragma unroll
      for (int c = 0; c < 8; ++c) kOverlap ? mapped[c] *= scale : column[c] += mapped[c];
      chunk = pack(mapped);
    }
    __syncthreads();  // the tile is there, and the one before is no longer read
    begin(tile + kStages - 1, turn == 0 ? kStages - 1 : turn - 1);
    if (tile + 1 < last) marks.load((tile + 1) * kTileTokens, tokens, keep);
    sums.add(x[turn], y[turn]);
    turn = turn + 1 == kStages ? 0 : turn + 1;
  }

  if constexpr (kOverlap) {
    if (!add_up_runs(args.parts, sums.numbers())) return;
  } else {
    if (!add_up_runs(args.parts, sums.numbers(), column)) return;
  }
  sums.store(args.matrix + std::int64_t{head} * K * K, false);
  if constexpr (!kOverlap) {
    const float sum = sum_columns<K, L::kRows>(column, L::row(0), L::chunk() * 8,
                                               reinterpret_cast<float*>(shared));
    if (threadIdx.x < K) args.vector[head * K + threadIdx.x] = sum;
  }
}

struct FastSumsGrad {
  MappedHeads<Bf16> keys;
  Heads<Bf16> values;
  const float *dmatrix, *dnormalizer;  // either may be null
  Runs runs;
  Heads<Bf16> dkeys, dvalues;
};

template <int K>
struct FastSumsGradShared {
  MatrixTile<K> matrix;  // dU, spread
  TokenTile<K> k[2], v[2];
  float du[K];
};

// dV = sigma(K) dU and dK = (V dU^T + du) sigma'(K): dU stays in shared memory, where the next tile
// arrives while one is worked on. Bound by memory, and close to it by shared memory.
template <int K, bool kAccumulate>
__global__ void __launch_bounds__(kTileThreads, 2) fast_sums_grad_kernel(FastSumsGrad args) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto& s = *reinterpret_cast<FastSumsGradShared<K>*>(shared);
  using L = Loading<K>;
  using W = Working<K>;
  const int head = blockIdx.x, tokens = args.keys.heads.tokens;
  const int first = blockIdx.y * args.runs.each,
            last = min(first + args.runs.each, args.runs.tiles);
  const int segment = head / args.keys.heads.count, in_segment = head % args.keys.heads.count;
  const TokenRows keys(args.keys.heads, segment, in_segment, L::chunk() * 8);
  const TokenRows values(args.values, segment, in_segment, L::chunk() * 8);
  const TokenRows dkeys(args.dkeys, segment, in_segment, W::column());
  const TokenRows dvalues(args.dvalues, segment, in_segment, W::column());
  const std::uint8_t* keep = args.keys.keep_of(head);

  const auto begin = [&](int tile, int turn) {
    if (tile < last) {
      copy_tile<K>(keys, tile * kTileTokens, tokens, s.k[turn]);
      copy_tile<K>(values, tile * kTileTokens, tokens, s.v[turn]);
    }
    copy_async_group();
  };
  begin(first, 0);
  begin(first + 1, 1);
  Marks<K> marks;
  marks.load(first * kTileTokens, tokens, keep);
  load_state<K, true>(args.dmatrix ? args.dmatrix + std::int64_t{head} * K * K : nullptr, s.matrix);
  for (int c = threadIdx.x; c < K; c += kTileThreads)
    s.du[c] = args.dnormalizer ? args.dnormalizer[head * K + c] : 0;

  for (int tile = first, turn = 0; tile < last; ++tile, turn ^= 1) {
    const int first_token = tile * kTileTokens;
    copy_async_wait<1>();
#pragma unroll
    for (int i = 0; i < L::kChunks; ++i) {
      uint4& chunk = s.k[turn].at(L::row(i), L::chunk());
      chunk = map_chunk(chunk, marks.valid(i));
    }
    __syncthreads();
    if (tile + 1 < last) marks.load(first_token + kTileTokens, tokens, keep);
    Standing<K> standing;
    float sums[W::kRowTiles][2][8];
    const auto each_row = [&](auto put) {
#pragma unroll
      for (int i = 0; i < W::kRowTiles * 2; ++i)
        if (first_token + W::row(i / 2, i % 2) < tokens) put(i / 2, i % 2);
    };
    const auto store = [&](const TokenRows& to, int m, int half) {
      if (kAccumulate) standing.add_to(m, half, sums[m][half]);
      *reinterpret_cast<uint4*>(to.at(first_token + W::row(m, half))) = pack(sums[m][half]);
    };

    if (kAccumulate) standing.load(dvalues, first_token, tokens);
    multiply<K, Times::kSpread>(s.k[turn], s.matrix, sums);
    each_row([&](int m, int half) { store(dvalues, m, half); });

    if (kAccumulate) standing.load(dkeys, first_token, tokens);
    multiply<K, Times::kSpreadTransposed>(s.v[turn], s.matrix, sums);
    each_row([&](int m, int half) {
      float mapped[8], added[8];
      unpack(s.k[turn].at(W::row(m, half), W::column() / 8), mapped);
      load_pack<8>(s.du + W::column(), added);
#pragma unroll
      for (int c = 0; c < 8; ++c)
        sums[m][half][c] = (sums[m][half][c] + added[c]) * sigma_slope(mapped[c]);
      store(dkeys, m, half);
    });
    __syncthreads();  // the tile is no longer read
    begin(tile + 2, turn);
  }
}

struct FastOverlapGrad {
  MappedHeads<Bf16> keys;
  const float *normalizer, *doverlap;
  float eps;
  Runs runs;
  Heads<Bf16> dkeys;
  bool accumulate;
  float *dnormalizer, *parts;  // dnormalizer may be null
  bool add_normalizer;
};

template <int K>
struct FastOverlapGradShared {
  static constexpr int kStages = 4;
  MatrixTile<K> matrix;  // dA + dA^T
  TokenTile<K> k[kStages];
  float inverse[2][kTileTokens], factor[2][kTileTokens];
  float partial[Working<K>::kAcross][kTileTokens];
  float z[K];
};

// dk = (k (dA + dA^T)) / den + e z, and dz. Bound by memory and shared memory alike.
template <int K>
__global__ void __launch_bounds__(kTileThreads, 2) fast_overlap_grad_kernel(FastOverlapGrad args) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto& s = *reinterpret_cast<FastOverlapGradShared<K>*>(shared);
  constexpr int kStages = FastOverlapGradShared<K>::kStages;
  using L = Loading<K>;
  using W = Working<K>;
  const int head = blockIdx.x, tokens = args.keys.heads.tokens;
  const int first = blockIdx.y * args.runs.each,
            last = min(first + args.runs.each, args.runs.tiles);
  const int segment = head / args.keys.heads.count, in_segment = head % args.keys.heads.count;
  const TokenRows keys(args.keys.heads, segment, in_segment, L::chunk() * 8);
  const TokenRows dkeys(args.dkeys, segment, in_segment, W::column());
  const std::uint8_t* keep = args.keys.keep_of(head);

  const auto begin = [&](int tile) {
    if (tile < last) copy_tile<K>(keys, tile * kTileTokens, tokens, s.k[(tile - first) % kStages]);
    copy_async_group();
  };
#pragma unroll
  for (int i = 0; i + 1 < kStages; ++i) begin(first + i);
  Marks<K> marks;
  marks.load(first * kTileTokens, tokens, keep);
  float z[8], dz[8] = {};
  load_pack<8>(args.normalizer + head * K + L::chunk() * 8, z);
  for (int c = threadIdx.x; c < K; c += kTileThreads) s.z[c] = args.normalizer[head * K + c];
  load_symmetric_state<K>(args.doverlap + std::int64_t{head} * K * K, s.matrix);

  for (int tile = first; tile < last; ++tile) {
    const int turn = tile % 2, first_token = tile * kTileTokens;
    auto& k = s.k[(tile - first) % kStages];
    copy_async_wait<kStages - 2>();
#pragma unroll
    for (int i = 0; i < L::kChunks; ++i) {
      uint4& chunk = k.at(L::row(i), L::chunk());
      float mapped[8];
      map(chunk, marks.valid(i), mapped);
      chunk = pack(mapped);
      const float reading = L::row_sum(dot(mapped, z));
      const float inverse = reciprocal_approx(fmaxf(reading, args.eps));
      if (L::chunk() == 0) {
        s.inverse[turn][L::row(i)] = inverse;
        s.factor[turn][L::row(i)] = reading > args.eps ? inverse : 0;
      }
    }
    __syncthreads();  // the tile is there, and the one before is no longer read
    begin(tile + kStages - 1);
    if (tile + 1 < last) marks.load(first_token + kTileTokens, tokens, keep);
    const bool accumulate = args.accumulate && dkeys.first;
    Standing<K> standing;
    if (accumulate) standing.load(dkeys, first_token, tokens);
    TokenGradTile<K> gradient;
    multiply<K, Times::kTransposed>(k, s.matrix, gradient.w);
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m)
#pragma unroll
      for (int i = 0; i < 16; ++i) gradient.w[m][i / 8][i % 8] *= s.inverse[turn][W::row(m, i / 8)];
    gradient.dots(k, s.partial);
    __syncthreads();
    gradient.finish(k, s.partial, s.factor[turn], 0.5f, s.z, dz,
                    [&](int m, int half, float(&dk)[8]) {
                      const int token = first_token + W::row(m, half);
                      if (!dkeys.first || token >= tokens) return;
                      if (accumulate) standing.add_to(m, half, dk);
                      *reinterpret_cast<uint4*>(dkeys.at(token)) = pack(dk);
                    });
  }
  if (!args.dnormalizer || !add_up_runs(args.parts, dz)) return;
  const float sum = sum_columns<K, W::kRowsOfColumn>(dz, W::row_of_column(), W::column(),
                                                     reinterpret_cast<float*>(&s.k));
  if (threadIdx.x < K) put(args.dnormalizer + head * K + threadIdx.x, sum, args.add_normalizer);
}

// MemoryKernels where has_fast_kernels().
template <int K>
class FastMemory {
 public:
  static void sums(const MemoryKernels::Sums& args) {
    run_sums<false>("memory_sums", args, {}, 0, args.matrix, args.normalizer);
  }
  static void overlap(const MemoryKernels::Overlap& args) {
    run_sums<true>("memory_overlap", args, args.normalizer, args.eps, args.overlap, {});
  }

  static void sums_grad(const MemoryKernels::SumsGrad& args) {
    if (!args.dqkv) return;
    const HeadLayout& n = args.layout;
    const Runs runs(heads_of(n), n.tokens);
    launch("memory_sums_grad",
           args.dqkv.accumulate ? fast_sums_grad_kernel<K, true> : fast_sums_grad_kernel<K, false>,
           blocks(n, runs), kTileThreads, sizeof(FastSumsGradShared<K>),
           FastSumsGrad{.keys = keys_of(args.qkv, n, args.keep),
                        .values = heads_in<BFloat16>(args.qkv, n, n.value_columns()),
                        .dmatrix = args.dmatrix ? args.dmatrix.data<float>() : nullptr,
                        .dnormalizer = args.dnormalizer ? args.dnormalizer.data<float>() : nullptr,
                        .runs = runs,
                        .dkeys = heads_in<BFloat16>(args.dqkv.tensor, n, n.key_columns()),
                        .dvalues = heads_in<BFloat16>(args.dqkv.tensor, n, n.value_columns())});
  }

  static void overlap_grad(const MemoryKernels::OverlapGrad& args) {
    const HeadLayout& n = args.layout;
    const Runs runs(heads_of(n), n.tokens);
    const Tensor parts = parts_of(heads_of(n), runs, 8);
    const GradTarget& dz = args.dnormalizer;
    launch("memory_overlap_grad", fast_overlap_grad_kernel<K>, blocks(n, runs), kTileThreads,
           sizeof(FastOverlapGradShared<K>),
           FastOverlapGrad{.keys = keys_of(args.qkv, n, args.keep),
                           .normalizer = args.normalizer.data<float>(),
                           .doverlap = args.doverlap.data<float>(),
                           .eps = static_cast<float>(args.eps),
                           .runs = runs,
                           .dkeys = heads_in<BFloat16>(args.dqkv.tensor, n, n.key_columns()),
                           .accumulate = args.dqkv.accumulate,
                           .dnormalizer = dz ? dz.tensor.data<float>() : nullptr,
                           .parts = parts ? parts.data<float>() : nullptr,
                           .add_normalizer = dz.accumulate});
  }

 private:
  template <bool kOverlap, class Args>
  static void run_sums(const char* who, const Args& args, const Tensor& normalizer, double eps,
                       const Tensor& matrix, const Tensor& vector) {
    using S = FastSumming<K, kOverlap>;
    const HeadLayout& n = args.layout;
    const Runs runs(heads_of(n), n.tokens);
    const Tensor parts = parts_of(heads_of(n), runs, S::kNumbers);
    launch(who, fast_sums_kernel<K, kOverlap>, blocks(n, runs), kTileThreads, S::kShared,
           FastSums{.keys = keys_of(args.qkv, n, args.keep),
                    .values = heads_in<BFloat16>(args.qkv, n, n.value_columns()),
                    .normalizer = normalizer ? normalizer.data<float>() : nullptr,
                    .eps = static_cast<float>(eps),
                    .runs = runs,
                    .matrix = matrix.data<float>(),
                    .vector = vector ? vector.data<float>() : nullptr,
                    .parts = parts ? parts.data<float>() : nullptr});
  }

  static std::int64_t heads_of(const HeadLayout& n) { return n.batch * n.segments * n.kv_heads; }
  static dim3 blocks(const HeadLayout& n, const Runs& runs) {
    return {static_cast<unsigned>(heads_of(n)), static_cast<unsigned>(runs.count)};
  }
  static MappedHeads<Bf16> keys_of(const Tensor& qkv, const HeadLayout& n, const Tensor& keep) {
    return mapped_heads_in<BFloat16>(qkv, n, n.key_columns(), keep);
  }
};

}  // namespace infini
