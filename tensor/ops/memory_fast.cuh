// The kernels of memory.h for bf16 and heads 64 or 128 wide, on tensor cores. All of them walk over
// a run of tiles of one key/value head of one segment, two blocks to a multiprocessor.
#pragma once

#include "tensor/ops/memory.h"
#include "tensor/ops/memory_tiles.cuh"

namespace infini {

struct FastSums {
  MappedHeads<Bf16> keys;
  Heads<Bf16> values;
  const float* normalizer;  // of the overlap
  float eps;
  Runs runs;
  float *matrix, *vector;  // of the first run
  std::int64_t matrix_size, vector_size;
};

// U = sigma(K)^T V and u, or the overlap k^T diag(1 / max(k z, eps)) k: sums over tokens in
// registers, while the next tile is on its way. Bound by memory, the overlap by the tensor cores.
template <int K, bool kOverlap>
__global__ void __launch_bounds__(kTileThreads, 2) fast_sums_kernel(FastSums args) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto* x = reinterpret_cast<Tile<kTileTokens, K>*>(shared);
  auto* y = x + 2;
  using L = Loading<K>;
  const int head = blockIdx.x, run = blockIdx.y, tokens = args.keys.heads.tokens;
  const int first = run * args.runs.each, last = min(first + args.runs.each, args.runs.tiles);
  const int segment = head / args.keys.heads.count, in_segment = head % args.keys.heads.count;
  const TokenRows keys(args.keys.heads, segment, in_segment, L::chunk() * 8);
  const TokenRows values(args.values, segment, in_segment, L::chunk() * 8);
  const std::uint8_t* keep = args.keys.keep_of(head);

  float column[8] = {};  // u of this thread's tokens; for the overlap, z
  if (kOverlap) load_pack<8>(args.normalizer + head * K + L::chunk() * 8, column);
  HeldTile<K> held;
  const auto begin = [&](int tile) {
    held.load(keys, tile * kTileTokens, tokens, keep);
    if constexpr (!kOverlap) {
#pragma unroll
      for (int i = 0; i < L::kChunks; ++i) {
        const int token = min(tile * kTileTokens + L::row(i), tokens - 1);
        copy_async<16>(&y[tile % 2].at(L::row(i), L::chunk()), values.at(token), true);
      }
      copy_async_group();
    }
  };
  const auto finish = [&](int tile) {
#pragma unroll
    for (int i = 0; i < L::kChunks; ++i) {
      float mapped[8];
      held.map_chunk(i, mapped);
      x[tile % 2].at(L::row(i), L::chunk()) = pack(mapped);
      const float inverse =
          kOverlap ? reciprocal_approx(fmaxf(L::row_sum(dot(mapped, column)), args.eps)) : 0;
#pragma unroll
      for (int c = 0; c < 8; ++c) kOverlap ? mapped[c] *= inverse : column[c] += mapped[c];
      if (kOverlap) y[tile % 2].at(L::row(i), L::chunk()) = pack(mapped);
    }
    if (!kOverlap) copy_async_wait<0>();
    __syncthreads();
  };

  Summing<K> sums;
  begin(first);
  finish(first);
  for (int tile = first; tile < last; ++tile) {
    if (tile + 1 < last) begin(tile + 1);
    sums.add(x[tile % 2], y[tile % 2]);
    if (tile + 1 < last) finish(tile + 1);
  }
  sums.store(args.matrix + run * args.matrix_size + std::int64_t{head} * K * K, false);
  if (!kOverlap)
    sum_columns<K, L::kRows>(column, L::row(0), L::chunk() * 8, reinterpret_cast<float*>(shared),
                             args.vector + run * args.vector_size + head * K, false);
}

struct FastSumsGrad {
  MappedHeads<Bf16> keys;
  Heads<Bf16> values;
  const float *dmatrix, *dnormalizer;  // either may be null
  Runs runs;
  Heads<Bf16> dkeys, dvalues;
  bool accumulate;
};

// dV = sigma(K) dU and dK = (V dU^T + du) sigma'(K): dU and its transpose stay in shared memory,
// the next tile waits in registers. Bound by memory.
template <int K>
__global__ void __launch_bounds__(kTileThreads, 2) fast_sums_grad_kernel(FastSumsGrad args) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto& matrix = *reinterpret_cast<Tile<K, K>*>(shared);
  auto& transposed = (&matrix)[1];
  auto& k = *reinterpret_cast<Tile<kTileTokens, K>*>(&matrix + 2);
  auto& v = (&k)[1];
  auto* du = reinterpret_cast<float*>(&k + 2);
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

  HeldTile<K> held_keys, held_values;
  held_keys.load(keys, first * kTileTokens, tokens, keep);
  held_values.load(values, first * kTileTokens, tokens);
  const float* state = args.dmatrix ? args.dmatrix + std::int64_t{head} * K * K : nullptr;
  load_state<K>(state, matrix);
  load_transposed_state<K, false>(state, transposed);
  for (int c = threadIdx.x; c < K; c += kTileThreads)
    du[c] = args.dnormalizer ? args.dnormalizer[head * K + c] : 0;

  for (int tile = first; tile < last; ++tile) {
    __syncthreads();  // the tile before is no longer read
#pragma unroll
    for (int i = 0; i < L::kChunks; ++i) {
      float mapped[8];
      held_keys.map_chunk(i, mapped);
      k.at(L::row(i), L::chunk()) = pack(mapped);
      v.at(L::row(i), L::chunk()) = held_values.raw[i];
    }
    __syncthreads();
    if (tile + 1 < last) {
      held_keys.load(keys, (tile + 1) * kTileTokens, tokens, keep);
      held_values.load(values, (tile + 1) * kTileTokens, tokens);
    }
#pragma unroll
    for (int pass = 0; pass < 2; ++pass) {
      const bool of_values = pass == 0;
      float sums[W::kRowTiles][2][8];
      multiply_rows<K>(of_values ? k : v, of_values ? transposed : matrix, sums);
#pragma unroll
      for (int m = 0; m < W::kRowTiles; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = W::row(m, half), token = tile * kTileTokens + row;
          if (token >= tokens) continue;
          if (!of_values) {
            float mapped[8], added[8];
            unpack(k.at(row, W::column() / 8), mapped);
            load_pack<8>(du + W::column(), added);
#pragma unroll
            for (int c = 0; c < 8; ++c)
              sums[m][half][c] = (sums[m][half][c] + added[c]) * sigma_slope(mapped[c]);
          }
          put_chunk((of_values ? dvalues : dkeys).at(token), sums[m][half], args.accumulate);
        }
    }
  }
}

struct FastOverlapGrad {
  MappedHeads<Bf16> keys;
  const float *normalizer, *doverlap;
  float eps;
  Runs runs;
  Heads<Bf16> dkeys;
  bool accumulate;
  float* dnormalizer;  // of the first run, or null
  std::int64_t normalizer_size;
  bool add_normalizer;
};

template <int K>
struct FastOverlapGradShared {
  Tile<K, K> matrix;  // dA + dA^T
  Tile<kTileTokens, K> k[2];
  float inverse[2][kTileTokens], factor[2][kTileTokens];
  float partial[Working<K>::kAcross][kTileTokens];
  float z[K];
};

// dk = (k (dA + dA^T)) / den + e z, and dz. Bound by memory and the tensor cores alike.
template <int K>
__global__ void __launch_bounds__(kTileThreads, 2) fast_overlap_grad_kernel(FastOverlapGrad args) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto& s = *reinterpret_cast<FastOverlapGradShared<K>*>(shared);
  using L = Loading<K>;
  using W = Working<K>;
  const int head = blockIdx.x, run = blockIdx.y, tokens = args.keys.heads.tokens;
  const int first = run * args.runs.each, last = min(first + args.runs.each, args.runs.tiles);
  const int segment = head / args.keys.heads.count, in_segment = head % args.keys.heads.count;
  const TokenRows keys(args.keys.heads, segment, in_segment, L::chunk() * 8);
  const TokenRows dkeys(args.dkeys, segment, in_segment, W::column());
  const std::uint8_t* keep = args.keys.keep_of(head);

  float z[8], dz[8] = {};
  load_pack<8>(args.normalizer + head * K + L::chunk() * 8, z);
  for (int c = threadIdx.x; c < K; c += kTileThreads) s.z[c] = args.normalizer[head * K + c];
  HeldTile<K> held;
  held.load(keys, first * kTileTokens, tokens, keep);
  load_transposed_state<K, true>(args.doverlap + std::int64_t{head} * K * K, s.matrix);

  for (int tile = first; tile < last; ++tile) {
    const int turn = tile % 2;
#pragma unroll
    for (int i = 0; i < L::kChunks; ++i) {
      float mapped[8];
      held.map_chunk(i, mapped);
      s.k[turn].at(L::row(i), L::chunk()) = pack(mapped);
      const float reading = L::row_sum(dot(mapped, z));
      const float inverse = reciprocal_approx(fmaxf(reading, args.eps));
      if (L::chunk() == 0) {
        s.inverse[turn][L::row(i)] = inverse;
        s.factor[turn][L::row(i)] = reading > args.eps ? inverse : 0;
      }
    }
    __syncthreads();
    if (tile + 1 < last) held.load(keys, (tile + 1) * kTileTokens, tokens, keep);
    TokenGradTile<K> gradient;
    multiply_rows<K>(s.k[turn], s.matrix, gradient.w);
#pragma unroll
    for (int m = 0; m < W::kRowTiles; ++m)
#pragma unroll
      for (int i = 0; i < 16; ++i) gradient.w[m][i / 8][i % 8] *= s.inverse[turn][W::row(m, i / 8)];
    gradient.dots(s.k[turn], s.partial);
    __syncthreads();
    gradient.finish(s.k[turn], s.partial, s.factor[turn], 0.5f, s.z, dkeys, tile * kTileTokens,
                    tokens, args.accumulate, dz);
  }
  if (args.dnormalizer)
    sum_columns<K, kTileThreads / 4 / W::kAcross>(
        dz, W::first_row() / (16 * W::kRowTiles) * 8 + threadIdx.x % 32 / 4, W::column(),
        reinterpret_cast<float*>(&s.k), args.dnormalizer + run * args.normalizer_size + head * K,
        args.add_normalizer);
}

// MemoryKernels where has_fast_kernels().
template <int K>
class FastMemory {
 public:
  static void sums(const MemoryKernels::Sums& args) {
    run_sums<false>("memory_sums", args, {}, 0, {.tensor = args.matrix},
                    {.tensor = args.normalizer});
  }
  static void overlap(const MemoryKernels::Overlap& args) {
    run_sums<true>("memory_overlap", args, args.normalizer, args.eps, {.tensor = args.overlap}, {});
  }

  static void sums_grad(const MemoryKernels::SumsGrad& args) {
    if (!args.dqkv) return;
    const HeadLayout& n = args.layout;
    const Runs runs(heads_of(n), n.tokens);
    constexpr std::size_t kShared =
        2 * sizeof(Tile<K, K>) + 2 * sizeof(Tile<kTileTokens, K>) + K * sizeof(float);
    launch("memory_sums_grad", fast_sums_grad_kernel<K>, blocks(n, runs), kTileThreads, kShared,
           FastSumsGrad{.keys = keys_of(args.qkv, n, args.keep),
                        .values = heads_in<BFloat16>(args.qkv, n, n.value_columns()),
                        .dmatrix = args.dmatrix ? args.dmatrix.data<float>() : nullptr,
                        .dnormalizer = args.dnormalizer ? args.dnormalizer.data<float>() : nullptr,
                        .runs = runs,
                        .dkeys = heads_in<BFloat16>(args.dqkv.tensor, n, n.key_columns()),
                        .dvalues = heads_in<BFloat16>(args.dqkv.tensor, n, n.value_columns()),
                        .accumulate = args.dqkv.accumulate});
  }

  static void overlap_grad(const MemoryKernels::OverlapGrad& args) {
    const HeadLayout& n = args.layout;
    const Runs runs(heads_of(n), n.tokens);
    const RunSums dnormalizer(args.dnormalizer, runs.count);
    launch("memory_overlap_grad", fast_overlap_grad_kernel<K>, blocks(n, runs), kTileThreads,
           sizeof(FastOverlapGradShared<K>),
           FastOverlapGrad{.keys = keys_of(args.qkv, n, args.keep),
                           .normalizer = args.normalizer.data<float>(),
                           .doverlap = args.doverlap.data<float>(),
                           .eps = static_cast<float>(args.eps),
                           .runs = runs,
                           .dkeys = heads_in<BFloat16>(args.dqkv.tensor, n, n.key_columns()),
                           .accumulate = args.dqkv.accumulate,
                           .dnormalizer = dnormalizer.data(),
                           .normalizer_size = dnormalizer.size(),
                           .add_normalizer = dnormalizer.accumulate()});
    dnormalizer.add_up("memory_overlap_grad");
  }

 private:
  template <bool kOverlap, class Args>
  static void run_sums(const char* who, const Args& args, const Tensor& normalizer, double eps,
                       const GradTarget& to_matrix, const GradTarget& to_vector) {
    const HeadLayout& n = args.layout;
    const Runs runs(heads_of(n), n.tokens);
    const RunSums matrix(to_matrix, runs.count), vector(to_vector, runs.count);
    launch(who, fast_sums_kernel<K, kOverlap>, blocks(n, runs), kTileThreads,
           4 * sizeof(Tile<kTileTokens, K>),
           FastSums{.keys = keys_of(args.qkv, n, args.keep),
                    .values = heads_in<BFloat16>(args.qkv, n, n.value_columns()),
                    .normalizer = normalizer ? normalizer.data<float>() : nullptr,
                    .eps = static_cast<float>(eps),
                    .runs = runs,
                    .matrix = matrix.data(),
                    .vector = vector.data(),
                    .matrix_size = matrix.size(),
                    .vector_size = vector.size()});
    matrix.add_up(who);
    vector.add_up(who);
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
