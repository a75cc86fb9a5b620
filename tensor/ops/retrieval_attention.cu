#include <cmath>

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/launch.cuh"
#include "tensor/ops/retrieval_attention.h"
#include "tensor/ops/retrieval_search.cuh"

namespace infini {
namespace {

template <class T, class N = Native<T>>
RetrievalReads<N> reads_of(const RetrievalAttentionKernels::Retrieval& args) {
  const HeadLayout& n = args.layout;
  return {.qkv = native<T>(args.qkv),
          .pairs = native<T>(args.pairs),
          .local = native<T>(args.local),
          .seen = args.seen.data<std::uint8_t>(),
          .scale = args.scale.data<Compute<N>>(),
          .gate = args.gate.data<Compute<N>>(),
          .chosen = args.chosen.data<std::int32_t>(),
          .segments = static_cast<int>(n.segments),
          .heads = n.heads,
          .group = n.group(),
          .width = n.head_width,
          .most = args.options.neighbours,
          .bypass_empty = args.options.bypass_empty,
          .tokens = n.tokens,
          .places = args.retrieval_tokens,
          .context = args.retrieval_tokens + (n.segments - 1) * n.tokens,
          .leading = n.qkv_width(),
          .pair_leading = 2 * std::int64_t{n.kv_heads} * n.head_width};
}

constexpr int kPairThreads = 128;

// A warp for each row and key head.
template <class N>
__global__ void __launch_bounds__(kPairThreads)
    pairs_kernel(const N* keys, std::int64_t leading, int kv_heads, int width, std::int64_t count,
                 N* pairs) {
  using A = Compute<N>;
  const std::int64_t i = (std::int64_t{blockIdx.x} * kPairThreads + threadIdx.x) / 32;
  if (i >= count) return;
  const std::int64_t row = i / kv_heads, head = i % kv_heads, values = kv_heads * width;
  const N* key = keys + row * leading + head * width;
  N* to = pairs + row * 2 * values + head * width;
  A square = 0;
  for (int c = threadIdx.x % 32; c < width; c += 32) square += A(key[c]) * A(key[c]);
  const A inverse = A(1) / sqrt(warp_sum(square) + A(kLengthEps));
  for (int c = threadIdx.x % 32; c < width; c += 32) {
    to[c] = N(A(key[c]) * inverse);
    to[values + c] = key[values + c];
  }
}

// Reading what was chosen: a warp for each row and head.
constexpr int kMixThreads = 128, kMixWarps = kMixThreads / 32;

// What a warp keeps in shared memory.
template <class A>
struct WarpScratch {
  A *probabilities, *dots;  // [n]
  A* numbers;               // [K]

  static std::size_t bytes(int most, int width) {
    return kMixWarps * (2 * most + width) * sizeof(A);
  }
  __device__ WarpScratch(unsigned char* shared, int most, int width)
      : probabilities(reinterpret_cast<A*>(shared) + threadIdx.x / 32 * (2 * most + width)),
        dots(probabilities + most),
        numbers(dots + most) {}
};

template <class A, class X, class Y>
__device__ A warp_dot(const X* x, const Y* y, int width) {
  A sum = 0;
  for (int c = threadIdx.x % 32; c < width; c += 32) sum += A(x[c]) * A(y[c]);
  return warp_sum(sum);
}

// One query's choice; its probabilities lie in scratch.
template <class N>
struct Read {
  using A = Compute<N>;
  const N *query, *key, *value;
  const std::int32_t* places;
  int count = 0;
  A inverse_length = 0, gate;

  __device__ Read(const RetrievalReads<N>& in, std::int64_t row, int head, WarpScratch<A>& scratch)
      : query(in.query(row, head)),
        key(in.key(row / in.tokens, head)),
        value(key + in.pair_leading / 2),
        places(in.choice(row, head)) {
    const int lane = threadIdx.x % 32;
    for (int begin = 0; begin < in.most; begin += 32)
      count +=
          __popc(__ballot_sync(0xffffffff, begin + lane < in.most && places[begin + lane] >= 0));
    gate = count == 0 && in.bypass_empty ? A(0) : A(1) / (A(1) + exp(-in.gate[head]));
    if (count == 0) return;
    inverse_length = A(1) / sqrt(warp_dot<A>(query, query, in.width) + A(kLengthEps));
    const A scale = in.scale[head] * inverse_length;
    A highest = 0, total = 0;
    for (int i = 0; i < count; ++i) {
      const A score = scale * warp_dot<A>(query, key + places[i] * in.pair_leading, in.width);
      highest = i == 0 || score > highest ? score : highest;
      if (lane == 0) scratch.probabilities[i] = score;
    }
    __syncwarp();
    for (int i = lane; i < count; i += 32) {
      scratch.probabilities[i] = exp(scratch.probabilities[i] - highest);
      total += scratch.probabilities[i];
    }
    total = warp_sum(total);
    for (int i = lane; i < count; i += 32) scratch.probabilities[i] /= total;
    __syncwarp();
  }

  // Element c of r.
  __device__ A retrieved(const WarpScratch<A>& scratch, std::int64_t pair_leading, int c) const {
    A sum = 0;
    for (int i = 0; i < count; ++i)
      sum += scratch.probabilities[i] * A(value[places[i] * pair_leading + c]);
    return sum;
  }
};

template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kMixThreads)
    mix_kernel(RetrievalReads<N> in, std::int64_t rows, N* y) {
  extern __shared__ __align__(16) unsigned char shared[];
  const std::int64_t i = std::int64_t{blockIdx.x} * kMixWarps + threadIdx.x / 32;
  if (i >= rows * in.heads) return;
  WarpScratch<A> scratch(shared, in.most, in.width);
  const Read<N> read(in, i / in.heads, static_cast<int>(i % in.heads), scratch);
  for (int c = threadIdx.x % 32; c < in.width; c += 32)
    y[i * in.width + c] = N(read.gate * read.retrieved(scratch, in.pair_leading, c) +
                            (A(1) - read.gate) * A(in.local[i * in.width + c]));
}

template <class N>
struct Writes {
  const N* dy;
  N *dqkv, *dlocal;
  bool add_queries, add_local;
  Compute<N>*dscale, *dgate;  // [R, H], to be summed
};

template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kMixThreads)
    mix_grad_kernel(RetrievalReads<N> in, std::int64_t rows, Writes<N> out) {
  extern __shared__ __align__(16) unsigned char shared[];
  const std::int64_t i = std::int64_t{blockIdx.x} * kMixWarps + threadIdx.x / 32;
  if (i >= rows * in.heads) return;
  const int head = static_cast<int>(i % in.heads), lane = threadIdx.x % 32;
  WarpScratch<A> scratch(shared, in.most, in.width);
  const Read<N> read(in, i / in.heads, head, scratch);
  const N* dy = out.dy + i * in.width;
  A dgate = 0;
  for (int c = lane; c < in.width; c += 32) {
    const A given = dy[c];
    dgate += given * (read.retrieved(scratch, in.pair_leading, c) - A(in.local[i * in.width + c]));
    if (!out.dlocal) continue;
    N* to = out.dlocal + i * in.width + c;
    *to = N((A(1) - read.gate) * given + (out.add_local ? A(*to) : A(0)));
  }
  dgate = warp_sum(dgate) * read.gate * (A(1) - read.gate);

  A mean = 0;
  for (int n = 0; n < read.count; ++n) {
    const A dot = warp_dot<A>(dy, read.value + read.places[n] * in.pair_leading, in.width);
    mean += scratch.probabilities[n] * dot;
    if (lane == 0) scratch.dots[n] = dot;
  }
  __syncwarp();
  A along = 0;  // q^ . dq^ / s
  for (int c = lane; c < in.width; c += 32) {
    A dunit = 0;
    for (int n = 0; n < read.count; ++n)
      dunit += read.gate * scratch.probabilities[n] * (scratch.dots[n] - mean) *
               A(read.key[read.places[n] * in.pair_leading + c]);
    scratch.numbers[c] = dunit;
    along += dunit * A(read.query[c]) * read.inverse_length;
  }
  along = warp_sum(along);
  if (lane == 0) {
    out.dscale[i] = along;
    out.dgate[i] = dgate;
  }
  if (!out.dqkv) return;
  for (int c = lane; c < in.width; c += 32) {
    const A unit = A(read.query[c]) * read.inverse_length;
    const A dq = in.scale[head] * (scratch.numbers[c] - unit * along) * read.inverse_length;
    N* to = out.dqkv + i / in.heads * in.leading + head * in.width + c;
    *to = N(dq + (out.add_queries ? A(*to) : A(0)));
  }
}

constexpr int kSumThreads = 256;

// A block for each head: the sum over rows of [R, H], always in the same order.
template <class A>
__global__ void __launch_bounds__(kSumThreads)
    head_sum_kernel(const A* numbers, std::int64_t rows, int heads, A* sums, bool accumulate) {
  A sum = 0;
  for (std::int64_t row = threadIdx.x; row < rows; row += kSumThreads)
    sum += numbers[row * heads + blockIdx.x];
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum + (accumulate ? sums[blockIdx.x] : A(0));
}

class CudaRetrievalAttention final : public RetrievalAttentionKernels {
 public:
  void pairs(const Tensor& qkv, const HeadLayout& n, const Tensor& pairs) const override {
    dispatch_float(qkv.dtype(), [&]<class T>() {
      const std::int64_t count = n.rows() * n.kv_heads;
      launch("memory_pairs", pairs_kernel<Native<T>>, blocks_for(count, kPairThreads / 32),
             kPairThreads, 0, native<T>(qkv) + n.query_width(), n.qkv_width(), n.kv_heads,
             n.head_width, count, native<T>(pairs));
    });
  }

  void choose(const Retrieval& args) const override {
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      using N = Native<T>;
      const HeadLayout& n = args.layout;
      launch(
          "retrieval_choose", choose_kernel<N>,
          dim3(blocks_for(n.tokens, kSide), n.heads, static_cast<unsigned>(n.batch * n.segments)),
          kChooseThreads, NeighbourSearch<Compute<N>>::bytes(args.options.neighbours),
          reads_of<T>(args));
    });
  }

  void mix(const Retrieval& args, const Tensor& y) const override {
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      using N = Native<T>;
      launch("retrieval_attention", mix_kernel<N>, mix_blocks(args), kMixThreads,
             mix_bytes<N>(args), reads_of<T>(args), args.layout.rows(), native<T>(y));
    });
  }

  void mix_grad(const RetrievalGrad& args) const override {
    dispatch_float(args.dy.dtype(), [&]<class T>() {
      using N = Native<T>;
      using A = Compute<N>;
      const Retrieval& given = args.forward;
      const std::int64_t rows = given.layout.rows();
      const int heads = given.layout.heads;
      const Tensor sums = Tensor::empty({2, rows, heads}, given.gate.dtype(), Device::kCuda);
      A *dscale = sums.data<A>(), *dgate = dscale + rows * heads;
      launch("retrieval_attention_grad", mix_grad_kernel<N>, mix_blocks(given), kMixThreads,
             mix_bytes<N>(given), reads_of<T>(given), rows,
             Writes<N>{.dy = native<T>(args.dy),
                       .dqkv = native<T>(args.dqkv.tensor),
                       .dlocal = native<T>(args.dlocal.tensor),
                       .add_queries = args.dqkv.accumulate,
                       .add_local = args.dlocal.accumulate,
                       .dscale = dscale,
                       .dgate = dgate});
      const auto add = [&](const GradTarget& target, const A* numbers) {
        if (target)
          launch("retrieval_attention_grad", head_sum_kernel<A>, static_cast<unsigned>(heads),
                 kSumThreads, 0, numbers, rows, heads, target.tensor.data<A>(), target.accumulate);
      };
      add(args.dscale, dscale);
      add(args.dgate, dgate);
    });
  }

 private:
  static unsigned mix_blocks(const Retrieval& args) {
    return blocks_for(args.layout.rows() * args.layout.heads, kMixWarps);
  }
  template <class N>
  static std::size_t mix_bytes(const Retrieval& args) {
    return WarpScratch<Compute<N>>::bytes(args.options.neighbours, args.layout.head_width);
  }
};

}  // namespace

const RetrievalAttentionKernels& cuda_retrieval_attention() {
  static const CudaRetrievalAttention kernels;
  return kernels;
}

}  // namespace infini
