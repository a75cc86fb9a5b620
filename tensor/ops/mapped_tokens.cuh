// What the CUDA kernels of the memory share whatever the type and the width: heads read by strides,
// the feature map, and the part of the gradients that goes token by token. mapped_tokens.h is the
// CPU's.
#pragma once

#include "tensor/ops/heads.h"
#include "tensor/ops/tiled_product.cuh"

namespace infini {

// sigma(x) = ELU(x) + 1, and its slope from the value there.
template <class A>
__device__ __forceinline__ A sigma(A x) {
  return x > 0 ? x + A(1) : exp(x);
}
template <class A>
__device__ __forceinline__ A sigma_slope(A mapped) {
  return mapped < A(1) ? mapped : A(1);
}

// The heads of one kind in rows [R, leading]. Heads are numbered through all segments of the batch:
// segment * count + head.
template <class N>
struct Heads {
  N* first;
  std::int64_t leading;
  int count, tokens, width;

  __device__ __forceinline__ N* row(int head, int token) const {
    return first + (std::int64_t{head / count} * tokens + token) * leading +
           std::int64_t{head % count} * width;
  }
};

template <class T>
Heads<Native<T>> heads_in(const Tensor& rows, const HeadLayout& layout, Columns columns) {
  return {rows ? native<T>(rows) + columns.begin : nullptr, rows ? rows.shape()[-1] : 0,
          static_cast<int>((columns.end - columns.begin) / layout.head_width),
          static_cast<int>(layout.tokens), layout.head_width};
}

// Heads under the feature map, zeros for padding.
template <class N>
struct MappedHeads {
  Heads<N> heads;
  const std::uint8_t* keep;  // or null

  // The marks of a head's tokens, or null.
  __device__ __forceinline__ const std::uint8_t* keep_of(int head) const {
    return keep ? keep + std::int64_t{head / heads.count} * heads.tokens : nullptr;
  }
  __device__ __forceinline__ Compute<N> at(int head, int token, int c) const {
    if (keep && !keep_of(head)[token]) return 0;
    return sigma(Compute<N>(heads.row(head, token)[c]));
  }
};

template <class T>
MappedHeads<Native<T>> mapped_heads_in(const Tensor& rows, const HeadLayout& layout,
                                       Columns columns, const Tensor& keep) {
  return {heads_in<T>(rows, layout, columns), keep ? keep.data<std::uint8_t>() : nullptr};
}

// What every token reads from the normaliser: reading[head, token] = sigma(x) . z, where the state
// of a head is shared by `group` of them. One warp for each token of a head.
template <class N, class A>
__global__ void reading_kernel(MappedHeads<N> x, const A* normalizer, int group, int count,
                               A* reading) {
  const int task = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (task >= count) return;
  const int head = task / x.heads.tokens, token = task % x.heads.tokens;
  const A* z = normalizer + std::int64_t{head / group} * x.heads.width;
  A sum = 0;
  for (int c = lane; c < x.heads.width; c += 32) sum += x.at(head, token, c) * z[c];
  sum = warp_sum(sum);
  if (lane == 0) reading[task] = sum;
}

template <class T>
Tensor readings(const MappedHeads<Native<T>>& x, std::int64_t heads, const Tensor& normalizer,
                int group) {
  using A = Accumulator<T>;
  const Tensor reading =
      Tensor::empty(Shape{heads, x.heads.tokens}, normalizer.dtype(), normalizer.device());
  const int count = static_cast<int>(reading.size());
  launch("reading", reading_kernel<Native<T>, A>, blocks_for(count, 8), 256, 0, x,
         normalizer.data<A>(), group, count, reading.data<A>());
  return reading;
}

// The gradient of the mapped tokens, whose denominator is max(sigma(x) . z, eps). With W the
// gradient that comes from the numerators and d = sigma(x) . W:
//   e = -share d / denominator, 0 where it was clamped;  dx (+)= (W + e z) sigma'(x).
template <class T>
struct TokenGrad {
  using A = Accumulator<T>;
  MappedHeads<Native<T>> x;
  int group;
  const A *normalizer, *reading, *from_numerator;  // from_numerator [heads, tokens, K]
  A eps, share;
  Heads<Native<T>> dx;  // first is null when nobody asked
  bool accumulate;
  A *e, *d;  // [heads, tokens]; d may be null
};

// One warp for each token of a head.
template <class T>
__global__ void token_grad_kernel(TokenGrad<T> args, int count) {
  using A = Accumulator<T>;
  const int task = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (task >= count) return;
  const int tokens = args.x.heads.tokens, width = args.x.heads.width;
  const int head = task / tokens, token = task % tokens;
  const A* z = args.normalizer + std::int64_t{head / args.group} * width;
  const A* w = args.from_numerator + std::int64_t{task} * width;
  A d = 0;
  for (int c = lane; c < width; c += 32) d += args.x.at(head, token, c) * w[c];
  d = warp_sum(d);
  const A reading = args.reading[task];
  const A e = reading > args.eps ? -args.share * d / reading : A(0);
  if (args.dx.first) {
    Native<T>* dx = args.dx.row(head, token);
    for (int c = lane; c < width; c += 32)
      put(dx + c, (w[c] + e * z[c]) * sigma_slope(args.x.at(head, token, c)), args.accumulate);
  }
  if (lane == 0) {
    args.e[task] = e;
    if (args.d) args.d[task] = d;
  }
}

template <class T>
void token_grad(const char* who, const TokenGrad<T>& args, std::int64_t heads) {
  const int count = static_cast<int>(heads * args.x.heads.tokens);
  launch(who, token_grad_kernel<T>, blocks_for(count, 8), 256, 0, args, count);
}

}  // namespace infini
