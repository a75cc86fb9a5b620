#include <cmath>

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/launch.cuh"
#include "tensor/ops/marked_attention.h"
#include "tensor/ops/shared_numbers.cuh"

namespace infini {
namespace {

constexpr int kThreads = 128;

// What the heads read of the batch rows, see marked_attention.cpp.
template <class N>
struct Reads {
  using A = Compute<N>;
  const N *queries, *keys, *values;
  const std::uint8_t* seen;
  int heads, group, width;
  std::int64_t count, places, query_leading, key_leading;  // count: queries
  bool own;
  A scale;

  __device__ std::int64_t query_at(std::int64_t b, int head, std::int64_t i) const {
    return (b * count + i) * query_leading + head * width;
  }
  __device__ std::int64_t key_at(std::int64_t b, int kv, std::int64_t j) const {
    return (b * places + j) * key_leading + kv * width;
  }
  __device__ bool reads(std::int64_t b, std::int64_t i, std::int64_t j) const {
    return seen[b * places + j] && (!own || j <= places - count + i);
  }
};

template <class T, class N = Native<T>>
Reads<N> reads_of(const MarkedAttentionKernels::Attention& args) {
  const HeadLayout& n = args.layout;
  return {.queries = native<T>(args.queries),
          .keys = native<T>(args.keys),
          .values = native<T>(args.values),
          .seen = args.seen.data<std::uint8_t>(),
          .heads = n.heads,
          .group = n.group(),
          .width = n.head_width,
          .count = n.tokens,
          .places = args.places(),
          .query_leading = n.query_width(),
          .key_leading = args.key_width(),
          .own = args.options.own,
          .scale = static_cast<Compute<N>>(args.options.scale)};
}

// The probabilities of query i over all places, by one block; zeros where it reads nothing.
template <class N, class A = Compute<N>>
__device__ void attend(const Reads<N>& in, std::int64_t b, int head, std::int64_t i, A* row) {
  const N* query = in.queries + in.query_at(b, head, i);
  A highest = -INFINITY, sum = 0;
  for (std::int64_t j = threadIdx.x; j < in.places; j += kThreads) {
    A score = -INFINITY;
    if (in.reads(b, i, j)) {
      const N* key = in.keys + in.key_at(b, head / in.group, j);
      score = 0;
      for (int c = 0; c < in.width; ++c) score += A(query[c]) * A(key[c]);
      score *= in.scale;
    }
    row[j] = score;
    highest = score > highest ? score : highest;
  }
  highest = block_max<kThreads>(highest);
  for (std::int64_t j = threadIdx.x; j < in.places; j += kThreads) {
    row[j] = in.reads(b, i, j) ? exp(row[j] - highest) : A(0);
    sum += row[j];
  }
  sum = block_sum<kThreads>(sum);
  for (std::int64_t j = threadIdx.x; j < in.places; j += kThreads) row[j] /= sum > 0 ? sum : A(1);
  __syncthreads();
}

// One block for each query, head and batch row: a thread sums a score, then a column of values.
template <class N>
__global__ void __launch_bounds__(kThreads) forward_kernel(Reads<N> in, N* y) {
  using A = Compute<N>;
  const std::int64_t i = blockIdx.x, b = blockIdx.z;
  const int head = blockIdx.y;
  A* row = shared_numbers<A>();
  attend(in, b, head, i, row);
  for (int c = threadIdx.x; c < in.width; c += kThreads) {
    A sum = 0;
    for (std::int64_t j = 0; j < in.places; ++j)
      if (row[j] != 0) sum += row[j] * A(in.values[in.key_at(b, head / in.group, j) + c]);
    y[in.query_at(b, head, i) + c] = N(sum);
  }
}

// What the kernels of a batch row's backward pass hand each other, [H, Q, P] each.
template <class A>
struct Scratch {
  A *probabilities, *dscores;
};

template <class N>
__device__ void put(N* to, Compute<N> value, bool accumulate) {
  *to = N(value + (accumulate ? Compute<N>(*to) : Compute<N>(0)));
}

// One block for each query and head, as forward_kernel.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    query_grad_kernel(Reads<N> in, std::int64_t b, const N* dy, Scratch<A> out, N* dqueries,
                      bool accumulate) {
  const std::int64_t i = blockIdx.x, at = (blockIdx.y * in.count + i) * in.places;
  const int head = blockIdx.y, kv = head / in.group;
  A *row = out.probabilities + at, *drow = out.dscores + at;
  attend(in, b, head, i, row);
  const N* dy_row = dy + in.query_at(b, head, i);
  A delta = 0;
  for (std::int64_t j = threadIdx.x; j < in.places; j += kThreads) {
    A sum = 0;
    if (row[j] != 0) {
      const N* value = in.values + in.key_at(b, kv, j);
      for (int c = 0; c < in.width; ++c) sum += A(dy_row[c]) * A(value[c]);
    }
    delta += row[j] * sum;
    drow[j] = sum;
  }
  delta = block_sum<kThreads>(delta);
  for (std::int64_t j = threadIdx.x; j < in.places; j += kThreads)
    drow[j] = in.scale * row[j] * (drow[j] - delta);
  __syncthreads();
  if (!dqueries) return;
  for (int c = threadIdx.x; c < in.width; c += kThreads) {
    A sum = 0;
    for (std::int64_t j = 0; j < in.places; ++j)
      if (row[j] != 0) sum += drow[j] * A(in.keys[in.key_at(b, kv, j) + c]);
    put(dqueries + in.query_at(b, head, i) + c, sum, accumulate);
  }
}

// One block for each place and key head. Heads of the group and queries are added in their order.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    key_grad_kernel(Reads<N> in, std::int64_t b, const N* dy, Scratch<A> from, N* dkeys,
                    bool add_keys, N* dvalues, bool add_values) {
  const std::int64_t j = blockIdx.x;
  const int kv = blockIdx.y;
  for (int c = threadIdx.x; c < in.width; c += kThreads) {
    A dkey = 0, dvalue = 0;
    for (int head = kv * in.group; head < (kv + 1) * in.group; ++head)
      for (std::int64_t i = 0; i < in.count; ++i) {
        const std::int64_t at = (head * in.count + i) * in.places + j,
                           query = in.query_at(b, head, i) + c;
        dkey += from.dscores[at] * A(in.queries[query]);
        dvalue += from.probabilities[at] * A(dy[query]);
      }
    if (dkeys) put(dkeys + in.key_at(b, kv, j) + c, dkey, add_keys);
    if (dvalues) put(dvalues + in.key_at(b, kv, j) + c, dvalue, add_values);
  }
}

unsigned blocks(std::int64_t count) { return static_cast<unsigned>(count); }

class CudaMarkedAttention final : public MarkedAttentionKernels {
 public:
  void attention(const Attention& args, const Tensor& y) const override {
    dispatch_float(args.queries.dtype(), [&]<class T>() {
      using N = Native<T>;
      launch("marked_attention", forward_kernel<N>,
             dim3(blocks(args.layout.tokens), args.layout.heads, blocks(args.layout.batch)),
             kThreads, args.places() * sizeof(Compute<N>), reads_of<T>(args), native<T>(y));
    });
  }

  // Batch row by batch row: the probabilities of one, and their gradients, lie in memory in full.
  void attention_grad(const AttentionGrad& args) const override {
    dispatch_float(args.dy.dtype(), [&]<class T>() {
      using N = Native<T>;
      using A = Compute<N>;
      const HeadLayout& n = args.forward.layout;
      const std::int64_t places = args.forward.places();
      const Tensor rows = Tensor::empty({2, n.heads, n.tokens, places},
                                        accumulator_of(args.dy.dtype()), Device::kCuda);
      const Scratch<A> scratch{.probabilities = rows.data<A>(),
                               .dscores = rows.data<A>() + rows.size() / 2};
      const Reads<N> in = reads_of<T>(args.forward);
      const N* dy = native<T>(args.dy);
      for (std::int64_t b = 0; b < n.batch; ++b) {
        launch("marked_attention_grad", query_grad_kernel<N>, dim3(blocks(n.tokens), n.heads),
               kThreads, 0, in, b, dy, scratch, native<T>(args.dqueries.tensor),
               args.dqueries.accumulate);
        launch("marked_attention_grad", key_grad_kernel<N>, dim3(blocks(places), n.kv_heads),
               kThreads, 0, in, b, dy, scratch, native<T>(args.dkeys.tensor), args.dkeys.accumulate,
               native<T>(args.dvalues.tensor), args.dvalues.accumulate);
      }
    });
  }
};

}  // namespace

const MarkedAttentionKernels& cuda_marked_attention() {
  static const CudaMarkedAttention kernels;
  return kernels;
}

}  // namespace infini
