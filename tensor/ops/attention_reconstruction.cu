#include <cmath>

#include "tensor/ops/attention_reconstruction.h"
#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/launch.cuh"
#include "tensor/ops/shared_numbers.cuh"

namespace infini {
namespace {

constexpr int kThreads = 128;

// What the heads read, see attention_reconstruction.cpp.
template <class N>
struct Reads {
  const N *qkv, *pairs;
  const std::uint8_t* seen;
  int heads, group, width;
  std::int64_t tokens, places, leading, pair_leading;
  Compute<N> scale;

  __device__ const N* query(std::int64_t segment, int head, std::int64_t i) const {
    return qkv + (segment * tokens + i) * leading + head * width;
  }
  __device__ std::int64_t pair(std::int64_t segment, int kv_head, std::int64_t j) const {
    return (segment * places + j) * pair_leading + kv_head * width;
  }
  __device__ const N* key(std::int64_t segment, int head, std::int64_t j) const {
    return pairs + pair(segment, head / group, j);
  }
  __device__ const N* value(std::int64_t segment, int head, std::int64_t j) const {
    return key(segment, head, j) + pair_leading / 2;
  }
  // Of a number of query i in a table [R, H K].
  __device__ std::int64_t out(std::int64_t segment, int head, std::int64_t i) const {
    return ((segment * tokens + i) * heads + head) * width;
  }
};

// The probabilities of query i over all places, zeros where nothing is seen, by one block.
template <class N, class A = Compute<N>>
__device__ void attend(const Reads<N>& in, std::int64_t segment, int head, std::int64_t i, A* query,
                       A* row) {
  for (int c = threadIdx.x; c < in.width; c += kThreads)
    query[c] = in.scale * A(in.query(segment, head, i)[c]);
  __syncthreads();
  A highest = -INFINITY;
  for (std::int64_t j = threadIdx.x; j < in.places; j += kThreads) {
    A score = -INFINITY;
    if (in.seen[segment * in.places + j]) {
      const N* key = in.key(segment, head, j);
      score = 0;
      for (int c = 0; c < in.width; ++c) score += query[c] * A(key[c]);
    }
    row[j] = score;
    highest = score > highest ? score : highest;
  }
  highest = block_max<kThreads>(highest);
  const bool any = highest > -INFINITY;
  A sum = 0;
  for (std::int64_t j = threadIdx.x; j < in.places; j += kThreads) {
    row[j] = any ? exp(row[j] - highest) : A(0);
    sum += row[j];
  }
  sum = block_sum<kThreads>(sum);
  for (std::int64_t j = threadIdx.x; any && j < in.places; j += kThreads) row[j] /= sum;
  __syncthreads();
}

// One block for each query, head and segment; scores by a thread each, in shared memory.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Reads<N> in, const A* minus, A factor, A* y) {
  const std::int64_t i = blockIdx.x, segment = blockIdx.z;
  const int head = blockIdx.y;
  A *query = shared_numbers<A>(), *row = query + in.width;
  attend(in, segment, head, i, query, row);
  const std::int64_t first = in.out(segment, head, i);
  for (int c = threadIdx.x; c < in.width; c += kThreads) {
    A sum = 0;
    for (std::int64_t j = 0; j < in.places; ++j)
      if (row[j] > 0) sum += row[j] * A(in.value(segment, head, j)[c]);
    y[first + c] = factor * (sum - (minus ? minus[first + c] : A(0)));
  }
}

// What the kernels of one segment's backward pass hand each other, [H, T, M] each.
template <class A>
struct Scratch {
  A *probabilities, *dscores;
};

// One block for each query and head of a segment.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    query_kernel(Reads<N> in, std::int64_t segment, const A* dy, A factor, Scratch<A> out) {
  const std::int64_t i = blockIdx.x, at = (blockIdx.y * in.tokens + i) * in.places;
  const int head = blockIdx.y;
  A *row = out.probabilities + at, *drow = out.dscores + at;
  attend(in, segment, head, i, shared_numbers<A>(), row);
  const A* given = dy + in.out(segment, head, i);
  A mean = 0;
  for (std::int64_t j = threadIdx.x; j < in.places; j += kThreads) {
    A sum = 0;
    if (in.seen[segment * in.places + j]) {
      const N* value = in.value(segment, head, j);
      for (int c = 0; c < in.width; ++c) sum += factor * given[c] * A(value[c]);
    }
    drow[j] = sum;
    mean += row[j] * sum;
  }
  mean = block_sum<kThreads>(mean);
  for (std::int64_t j = threadIdx.x; j < in.places; j += kThreads)
    drow[j] = in.scale * row[j] * (drow[j] - mean);
}

// One block for each place and key head of a segment. Heads of the group and queries are added in
// their order.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    place_kernel(Reads<N> in, std::int64_t segment, const A* dy, A factor, Scratch<A> from,
                 N* drows) {
  const std::int64_t j = blockIdx.x;
  const int kv = blockIdx.y;
  N* to = drows + in.pair(segment, kv, j);
  for (int c = threadIdx.x; c < in.width; c += kThreads) {
    A dkey = 0, dvalue = 0;
    for (int head = kv * in.group; head < (kv + 1) * in.group; ++head)
      for (std::int64_t i = 0; i < in.tokens; ++i) {
        const std::int64_t at = (head * in.tokens + i) * in.places + j;
        dkey += from.dscores[at] * A(in.query(segment, head, i)[c]);
        dvalue += from.probabilities[at] * factor * dy[in.out(segment, head, i) + c];
      }
    to[c] = N(dkey);
    to[in.pair_leading / 2 + c] = N(dvalue);
  }
}

unsigned blocks(std::int64_t count) { return static_cast<unsigned>(count); }

class CudaAttentionReconstruction final : public AttentionReconstructionKernels {
 public:
  void attention(const Attention& args, const Tensor& minus, double factor,
                 const Tensor& y) const override {
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      using A = Compute<Native<T>>;
      const HeadLayout& n = args.layout;
      const A* subtracted = minus ? minus.data<A>() : nullptr;
      launch("attention_reconstruction", forward_kernel<Native<T>>,
             dim3(blocks(n.tokens), n.heads, blocks(n.batch * n.segments)), kThreads,
             (n.head_width + args.places) * sizeof(A), reads_of<T>(args), subtracted,
             static_cast<A>(factor), y.data<A>());
    });
  }

  // Segment by segment: the probabilities of one, and their gradients, lie in memory in full.
  void attention_grad(const Attention& args, const Tensor& dy, double factor,
                      const Tensor& drows) const override {
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      using N = Native<T>;
      using A = Compute<N>;
      const HeadLayout& n = args.layout;
      const Tensor rows =
          Tensor::empty({2, n.heads, n.tokens, args.places}, dy.dtype(), Device::kCuda);
      const Scratch<A> scratch{.probabilities = rows.data<A>(),
                               .dscores = rows.data<A>() + rows.size() / 2};
      const Reads<N> in = reads_of<T>(args);
      const A* given = dy.data<A>();
      for (std::int64_t segment = 0; segment < n.batch * n.segments; ++segment) {
        launch("attention_reconstruction_grad", query_kernel<N>, dim3(blocks(n.tokens), n.heads),
               kThreads, n.head_width * sizeof(A), in, segment, given, static_cast<A>(factor),
               scratch);
        launch("attention_reconstruction_grad", place_kernel<N>,
               dim3(blocks(args.places), n.kv_heads), kThreads, 0, in, segment, given,
               static_cast<A>(factor), scratch, native<T>(drows));
      }
    });
  }

 private:
  template <class T>
  static Reads<Native<T>> reads_of(const Attention& args) {
    const HeadLayout& n = args.layout;
    return {.qkv = native<T>(args.qkv),
            .pairs = native<T>(args.pairs.rows),
            .seen = args.pairs.seen.data<std::uint8_t>(),
            .heads = n.heads,
            .group = n.group(),
            .width = n.head_width,
            .tokens = n.tokens,
            .places = args.places,
            .leading = n.qkv_width(),
            .pair_leading = 2 * std::int64_t{n.kv_heads} * n.head_width,
            .scale = static_cast<Compute<Native<T>>>(args.scale)};
  }
};

}  // namespace

const AttentionReconstructionKernels& cuda_attention_reconstruction() {
  static const CudaAttentionReconstruction kernels;
  return kernels;
}

}  // namespace infini
