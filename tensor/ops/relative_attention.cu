#include <cmath>

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/launch.cuh"
#include "tensor/ops/relative_attention.h"
#include "tensor/ops/shared_numbers.cuh"

namespace infini {
namespace {

constexpr int kThreads = 128;

__global__ void seen_kernel(const std::uint8_t* present, const std::uint8_t* keep,
                            const std::uint8_t* resets, int segments, std::int64_t tokens,
                            std::int64_t cache, std::int64_t count, std::uint8_t* seen) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const std::int64_t m = i % cache, s = i / cache % (segments + 1), b = i / cache / (segments + 1);
  const std::int64_t place = s * tokens + m, token = place - cache;
  bool stands = token < 0 ? present && present[b * cache + place]
                          : !keep || keep[b * segments * tokens + token];
  for (std::int64_t n = 0; resets && n <= s && n < segments; ++n)
    if (resets[b * segments + n]) stands = stands && place >= cache + n * tokens;
  seen[i] = stands;
}

// What the heads read of the segments from `segment` on, see relative_attention.cpp.
template <class N>
struct Reads {
  using A = Compute<N>;
  const N *qkv, *cached, *keys;  // first rows of all
  const A *content_bias, *position_bias;
  const std::uint8_t* seen;
  int segments, heads, group, width;
  std::int64_t tokens, cache, context, step;
  std::int64_t leading, cached_leading, distance_leading;
  A scale;

  __device__ std::int64_t row(std::int64_t segment) const { return segment * tokens; }
  __device__ std::int64_t cached_row(std::int64_t segment) const {
    return segment / segments * context + segment % segments * step;
  }
  __device__ const N* query(std::int64_t segment, int head, std::int64_t i) const {
    return qkv + (row(segment) + i) * leading + head * width;
  }
  // Place j of the cache and the segment's own tokens after it.
  __device__ const N* key(std::int64_t segment, int head, std::int64_t j) const {
    const int kv = head / group;
    return j < cache ? cached + (cached_row(segment) + j) * cached_leading + kv * width
                     : qkv + (row(segment) + j - cache) * leading + (heads + kv) * width;
  }
  __device__ const N* value(std::int64_t segment, int head, std::int64_t j) const {
    return key(segment, head, j) + distance_leading;
  }
  __device__ const N* distance_key(int head, std::int64_t distance) const {
    return keys + distance * distance_leading + head / group * width;
  }
  __device__ bool reads(std::int64_t segment, std::int64_t j) const {
    const std::int64_t border = segment / segments * (segments + 1) + segment % segments;
    return j >= cache || seen[border * cache + j];
  }
};

template <class N>
Reads<N> reads_of(const RelativeAttentionKernels::Attention& args, const N* qkv, const N* cached,
                  const N* keys) {
  using A = Compute<N>;
  const HeadLayout& n = args.layout;
  const std::int64_t width = std::int64_t{n.kv_heads} * n.head_width;
  return {.qkv = qkv,
          .cached = cached,
          .keys = keys,
          .content_bias = args.positions.content_bias.data<A>(),
          .position_bias = args.positions.position_bias.data<A>(),
          .seen = args.seen.data<std::uint8_t>(),
          .segments = static_cast<int>(n.segments),
          .heads = n.heads,
          .group = n.group(),
          .width = n.head_width,
          .tokens = n.tokens,
          .cache = args.cache_tokens,
          .context = args.context_tokens(),
          .step = args.step,
          .leading = n.qkv_width(),
          .cached_leading = 2 * width,
          .distance_leading = width,
          .scale = static_cast<A>(args.scale)};
}

// The probabilities of query i over the first `count` places, by one block. content and position,
// [K] each, receive q + u and q + v.
template <class N, class A = Compute<N>>
__device__ void attend(const Reads<N>& in, std::int64_t segment, int head, std::int64_t i,
                       std::int64_t count, A* content, A* position, A* row) {
  const N* query = in.query(segment, head, i);
  for (int c = threadIdx.x; c < in.width; c += kThreads) {
    content[c] = A(query[c]) + in.content_bias[head * in.width + c];
    position[c] = A(query[c]) + in.position_bias[head * in.width + c];
  }
  __syncthreads();
  A highest = -INFINITY;
  for (std::int64_t j = threadIdx.x; j < count; j += kThreads) {
    A score = -INFINITY;
    if (in.reads(segment, j)) {
      const N *key = in.key(segment, head, j), *far = in.distance_key(head, count - 1 - j);
      score = 0;
      for (int c = 0; c < in.width; ++c) score += content[c] * A(key[c]) + position[c] * A(far[c]);
      score *= in.scale;
    }
    row[j] = score;
    highest = score > highest ? score : highest;
  }
  highest = block_max<kThreads>(highest);
  A sum = 0;
  for (std::int64_t j = threadIdx.x; j < count; j += kThreads) {
    row[j] = exp(row[j] - highest);
    sum += row[j];
  }
  sum = block_sum<kThreads>(sum);
  for (std::int64_t j = threadIdx.x; j < count; j += kThreads) row[j] /= sum;
  __syncthreads();
}

// One block for each query token, head and segment. Scores are summed by a thread each, in shared
// memory; bound by the reads of keys, which neighbours find in the cache.
template <class N>
__global__ void __launch_bounds__(kThreads) forward_kernel(Reads<N> in, N* y) {
  using A = Compute<N>;
  const std::int64_t i = blockIdx.x, segment = blockIdx.z, count = in.cache + i + 1;
  const int head = blockIdx.y;
  A *content = shared_numbers<A>(), *position = content + in.width, *row = position + in.width;
  attend(in, segment, head, i, count, content, position, row);
  N* out = y + ((in.row(segment) + i) * in.heads + head) * in.width;
  for (int c = threadIdx.x; c < in.width; c += kThreads) {
    A sum = 0;
    for (std::int64_t j = 0; j < count; ++j)
      if (in.reads(segment, j)) sum += row[j] * A(in.value(segment, head, j)[c]);
    out[c] = N(sum);
  }
}

// What the kernels of one segment's backward pass hand each other.
template <class A>
struct Scratch {
  A *probabilities, *dscores;  // [H, T, M + T]
  A *dcontent, *dposition;     // [H, T, K], gradients of q + u and q + v
};

// One block for each query token and head of a segment, as forward_kernel.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    query_grad_kernel(Reads<N> in, std::int64_t segment, const N* dy, Scratch<A> out, N* dqkv,
                      bool accumulate) {
  const std::int64_t i = blockIdx.x, places = in.cache + in.tokens, count = in.cache + i + 1;
  const int head = blockIdx.y;
  A *content = shared_numbers<A>(), *position = content + in.width;
  const std::int64_t at = head * in.tokens + i;
  A *row = out.probabilities + at * places, *drow = out.dscores + at * places;
  attend(in, segment, head, i, count, content, position, row);

  const N* dy_row = dy + ((in.row(segment) + i) * in.heads + head) * in.width;
  A delta = 0;
  for (std::int64_t j = threadIdx.x; j < places; j += kThreads) {
    A sum = 0;
    if (j < count && in.reads(segment, j)) {
      const N* value = in.value(segment, head, j);
      for (int c = 0; c < in.width; ++c) sum += A(dy_row[c]) * A(value[c]);
      delta += row[j] * sum;
    } else {
      row[j] = 0;
    }
    drow[j] = sum;
  }
  delta = block_sum<kThreads>(delta);
  for (std::int64_t j = threadIdx.x; j < places; j += kThreads)
    drow[j] = in.scale * row[j] * (drow[j] - delta);
  __syncthreads();
  for (int c = threadIdx.x; c < in.width; c += kThreads) {
    A by_content = 0, by_position = 0;
    for (std::int64_t j = 0; j < count; ++j) {
      if (!in.reads(segment, j)) continue;
      by_content += drow[j] * A(in.key(segment, head, j)[c]);
      by_position += drow[j] * A(in.distance_key(head, count - 1 - j)[c]);
    }
    out.dcontent[at * in.width + c] = by_content;
    out.dposition[at * in.width + c] = by_position;
    if (!dqkv) continue;
    N* to = dqkv + (in.row(segment) + i) * in.leading + head * in.width + c;
    *to = N(by_content + by_position + (accumulate ? A(*to) : A(0)));
  }
}

// One block for each place and key head of a segment. Heads of the group and queries are added in
// their order. Gradients of cached places are added up over segments in dcached [B context, 2 Hk
// K].
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    key_grad_kernel(Reads<N> in, std::int64_t segment, const N* dy, Scratch<A> from, N* dqkv,
                    bool accumulate, A* dcached) {
  const std::int64_t j = blockIdx.x, places = in.cache + in.tokens;
  const int kv = blockIdx.y;
  const std::int64_t first = j < in.cache ? 0 : j - in.cache;
  for (int c = threadIdx.x; c < in.width; c += kThreads) {
    A dkey = 0, dvalue = 0;
    for (int head = kv * in.group; head < (kv + 1) * in.group; ++head)
      for (std::int64_t i = first; i < in.tokens; ++i) {
        const std::int64_t at = (head * in.tokens + i) * places + j;
        dkey += from.dscores[at] *
                (A(in.query(segment, head, i)[c]) + in.content_bias[head * in.width + c]);
        dvalue += from.probabilities[at] *
                  A(dy[((in.row(segment) + i) * in.heads + head) * in.width + c]);
      }
    if (j < in.cache) {
      A* to = dcached + (in.cached_row(segment) + j) * in.cached_leading + kv * in.width + c;
      to[0] += dkey;
      to[in.distance_leading] += dvalue;
    } else if (dqkv) {
      N* to = dqkv + (in.row(segment) + first) * in.leading + (in.heads + kv) * in.width + c;
      N* to_value = to + in.distance_leading;
      *to = N(dkey + (accumulate ? A(*to) : A(0)));
      *to_value = N(dvalue + (accumulate ? A(*to_value) : A(0)));
    }
  }
}

// One block for each distance and key head: dkeys [M + T, Hk K] += what a segment adds.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    distance_grad_kernel(Reads<N> in, std::int64_t segment, Scratch<A> from, A* dkeys) {
  const std::int64_t distance = blockIdx.x, places = in.cache + in.tokens;
  const int kv = blockIdx.y;
  const std::int64_t first = distance > in.cache ? distance - in.cache : 0;
  for (int c = threadIdx.x; c < in.width; c += kThreads) {
    A sum = 0;
    for (int head = kv * in.group; head < (kv + 1) * in.group; ++head)
      for (std::int64_t i = first; i < in.tokens; ++i)
        sum += from.dscores[(head * in.tokens + i) * places + in.cache + i - distance] *
               (A(in.query(segment, head, i)[c]) + in.position_bias[head * in.width + c]);
    dkeys[distance * in.distance_leading + kv * in.width + c] += sum;
  }
}

// A thread for each of the H K numbers: du and dv += the sums of a segment's queries, in their
// order.
template <class A>
__global__ void __launch_bounds__(kThreads)
    bias_grad_kernel(Scratch<A> from, int count, int width, std::int64_t tokens, A* du, A* dv) {
  const int n = blockIdx.x * kThreads + threadIdx.x;
  if (n >= count) return;
  A by_content = 0, by_position = 0;
  for (std::int64_t i = 0; i < tokens; ++i) {
    const std::int64_t at = (n / width * tokens + i) * width + n % width;
    by_content += from.dcontent[at];
    by_position += from.dposition[at];
  }
  du[n] += by_content;
  dv[n] += by_position;
}

unsigned blocks(std::int64_t count) { return static_cast<unsigned>(count); }

class CudaRelativeAttention final : public RelativeAttentionKernels {
 public:
  void seen(const Seen& args) const override {
    const HeadLayout& n = args.layout;
    const std::int64_t count = args.seen.size();
    const auto flags = [](const Tensor& tensor) {
      return tensor ? tensor.data<std::uint8_t>() : nullptr;
    };
    launch("cache_seen", seen_kernel, blocks_for(count, kThreads), kThreads, 0, flags(args.present),
           flags(args.keep), flags(args.resets), static_cast<int>(n.segments), n.tokens,
           args.cache_tokens, count, flags(args.seen));
  }

  void attention(const Attention& args, const Tensor& y) const override {
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      using N = Native<T>;
      const HeadLayout& n = args.layout;
      const std::size_t numbers = 2 * n.head_width + args.cache_tokens + n.tokens;
      launch("relative_attention", forward_kernel<N>,
             dim3(blocks(n.tokens), n.heads, blocks(n.batch * n.segments)), kThreads,
             numbers * sizeof(Compute<N>), given<T>(args), native<T>(y));
    });
  }

  // Segment by segment: the probabilities of one, and their gradients, lie in memory in full.
  void attention_grad(const AttentionGrad& args) const override {
    dispatch_float(args.forward.qkv.dtype(), [&]<class T>() {
      using N = Native<T>;
      using A = Compute<N>;
      const HeadLayout& n = args.forward.layout;
      const std::int64_t places = args.forward.cache_tokens + n.tokens;
      const DType dtype = accumulator_of(args.dy.dtype());
      const Tensor rows = Tensor::empty({2, n.heads, n.tokens, places}, dtype, Device::kCuda);
      const Tensor queries =
          Tensor::empty({2, n.heads, n.tokens, n.head_width}, dtype, Device::kCuda);
      const Scratch<A> scratch{.probabilities = rows.data<A>(),
                               .dscores = rows.data<A>() + rows.size() / 2,
                               .dcontent = queries.data<A>(),
                               .dposition = queries.data<A>() + queries.size() / 2};
      const auto sums = [&](const Tensor& like) {
        return Tensor::zeros(like.shape(), dtype, Device::kCuda);
      };
      const Tensor dcached = sums(args.forward.cached), dkeys = sums(args.forward.positions.keys),
                   du = sums(args.forward.positions.content_bias),
                   dv = sums(args.forward.positions.position_bias);
      const Reads<N> in = given<T>(args.forward);
      const N* dy = native<T>(args.dy);
      N* dqkv = native<T>(args.dqkv.tensor);
      const bool accumulate = args.dqkv.accumulate;
      const int biases = n.heads * n.head_width;
      for (std::int64_t segment = 0; segment < n.batch * n.segments; ++segment) {
        launch("relative_attention_grad", query_grad_kernel<N>, dim3(blocks(n.tokens), n.heads),
               kThreads, 2 * n.head_width * sizeof(A), in, segment, dy, scratch, dqkv, accumulate);
        launch("relative_attention_grad", key_grad_kernel<N>, dim3(blocks(places), n.kv_heads),
               kThreads, 0, in, segment, dy, scratch, dqkv, accumulate, dcached.data<A>());
        launch("relative_attention_grad", distance_grad_kernel<N>, dim3(blocks(places), n.kv_heads),
               kThreads, 0, in, segment, scratch, dkeys.data<A>());
        launch("relative_attention_grad", bias_grad_kernel<A>, blocks_for(biases, kThreads),
               kThreads, 0, scratch, biases, n.head_width, n.tokens, du.data<A>(), dv.data<A>());
      }
      const auto put = [](const GradTarget& target, const Tensor& values) {
        if (target) add_into(target, values);
      };
      put(args.dcached, dcached);
      put(args.dkeys, dkeys);
      put(args.dcontent_bias, du);
      put(args.dposition_bias, dv);
    });
  }

 private:
  template <class T>
  static Reads<Native<T>> given(const Attention& args) {
    return reads_of<Native<T>>(args, native<T>(args.qkv), native<T>(args.cached),
                               native<T>(args.positions.keys));
  }
};

}  // namespace

const RelativeAttentionKernels& cuda_relative_attention() {
  static const CudaRelativeAttention kernels;
  return kernels;
}

}  // namespace infini
