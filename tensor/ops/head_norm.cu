#include <algorithm>

#include "tensor/ops/column_sums.cuh"
#include "tensor/ops/head_norm.h"

namespace infini {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kMostColumns = 512;       // of a head
constexpr std::int64_t kPieces = 1024;  // warps that go over all heads in the backward pass

// Of one head: its numbers begin at `first` of x, y and dy.
template <class N>
struct Heads {
  const N *x, *dy;
  const Compute<N>*query_weight, *key_weight;
  Compute<N>* inv_rms;
  N *y, *dx;
  bool accumulate;
  Compute<N>* partial;  // [kPieces, 2 K]
  Compute<N> eps;
  std::int64_t rows;
  int heads, kv_heads, width;

  __device__ int all_heads() const { return heads + 2 * kv_heads; }
  __device__ int normed() const { return heads + kv_heads; }
};

// One warp for each head of each row; lane l takes columns l, l + 32, ...
template <class N>
__global__ void __launch_bounds__(kThreads) head_norm_kernel(const Heads<N> args) {
  using A = Compute<N>;
  const std::int64_t item = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32, head = static_cast<int>(item % args.all_heads());
  const std::int64_t r = item / args.all_heads();
  if (r >= args.rows) return;
  const N* const x = args.x + item * args.width;
  N* const y = args.y + item * args.width;
  if (head >= args.normed()) {
    for (int c = lane; c < args.width; c += 32) y[c] = x[c];
    return;
  }
  A squares = 0;
  for (int c = lane; c < args.width; c += 32) squares += A(x[c]) * A(x[c]);
  const A inv = A(1) / sqrt(warp_sum(squares) / A(args.width) + args.eps);
  const A* const weight = head < args.heads ? args.query_weight : args.key_weight;
  for (int c = lane; c < args.width; c += 32) y[c] = N(A(x[c]) * inv * weight[c]);
  if (lane == 0) args.inv_rms[r * args.normed() + head] = inv;
}

// kPieces warps go over the heads of all rows, a warp's in a fixed order. With n = x / rms and
// g = dy * weight:  dx = (g - n mean(g n)) / rms,  dweight = the sum of dy n, whose parts stay in
// registers until the end.
template <class N>
__global__ void __launch_bounds__(kThreads) head_norm_grad_kernel(const Heads<N> args) {
  using A = Compute<N>;
  constexpr int kHeld = kMostColumns / 32;
  const std::int64_t piece = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  A dquery[kHeld] = {}, dkey[kHeld] = {};
  for (std::int64_t item = piece; item < args.rows * args.all_heads(); item += kPieces) {
    const int head = static_cast<int>(item % args.all_heads());
    const N* const x = args.x + item * args.width;
    const N* const dy = args.dy + item * args.width;
    N* const dx = args.dx ? args.dx + item * args.width : nullptr;
    if (head >= args.normed()) {
      for (int c = lane; dx && c < args.width; c += 32)
        dx[c] = args.accumulate ? N(A(dx[c]) + A(dy[c])) : dy[c];
      continue;
    }
    const bool is_query = head < args.heads;
    const A* const weight = is_query ? args.query_weight : args.key_weight;
    const A inv = args.inv_rms[item / args.all_heads() * args.normed() + head];
    A dot = 0;
    for (int c = lane; c < args.width; c += 32) dot += A(dy[c]) * weight[c] * A(x[c]);
    const A shrink = warp_sum(dot) * inv * inv / A(args.width);
#pragma unroll
    for (int held = 0; held < kHeld; ++held) {
      const int c = lane + 32 * held;
      if (c >= args.width) break;
      const A in = A(x[c]), incoming = A(dy[c]);
      const A result = inv * (incoming * weight[c] - in * shrink);
      if (dx) dx[c] = N(args.accumulate ? A(dx[c]) + result : result);
      // Not by one index into both: that would keep them in memory.
      dquery[held] += is_query ? incoming * in * inv : A(0);
      dkey[held] += is_query ? A(0) : incoming * in * inv;
    }
  }
  A* const to = args.partial + piece * 2 * args.width;
#pragma unroll
  for (int held = 0; held < kHeld; ++held) {
    const int c = lane + 32 * held;
    if (c >= args.width) break;
    to[c] = dquery[held];
    to[args.width + c] = dkey[held];
  }
}

template <class N>
Heads<N> heads_of(const HeadLayout& layout) {
  Heads<N> heads{};
  heads.rows = layout.rows();
  heads.heads = layout.heads;
  heads.kv_heads = layout.kv_heads;
  heads.width = layout.head_width;
  return heads;
}

class CudaHeadNorm final : public HeadNormKernels {
 public:
  void head_norm(const HeadNorm& args) const override {
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      using N = Native<T>;
      Heads<N> heads = heads_of<N>(args.layout);
      heads.x = native<T>(args.qkv);
      heads.y = native<T>(args.y);
      heads.query_weight = args.query_weight.data<Compute<N>>();
      heads.key_weight = args.key_weight.data<Compute<N>>();
      heads.inv_rms = args.inv_rms.data<Compute<N>>();
      heads.eps = static_cast<Compute<N>>(args.eps);
      const std::int64_t items = heads.rows * (heads.heads + 2 * heads.kv_heads);
      if (items == 0) return;
      head_norm_kernel<<<blocks_for(items, kWarps), kThreads, 0, cuda_stream()>>>(heads);
      check_launch("head_norm");
    });
  }

  void head_norm_grad(const HeadNormGrad& args) const override {
    check(args.layout.head_width <= kMostColumns, "head_norm_grad: heads of ",
          args.layout.head_width, " numbers, at most ", kMostColumns, " on a GPU");
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      using N = Native<T>;
      using A = Compute<N>;
      const std::int64_t width = args.layout.head_width;
      const Tensor partial = Tensor::empty({kPieces, 2 * width}, dtype_of<A>(), Device::kCuda);
      Heads<N> heads = heads_of<N>(args.layout);
      heads.x = native<T>(args.qkv);
      heads.dy = native<T>(args.dy);
      heads.dx = native<T>(args.dqkv.tensor);
      heads.accumulate = args.dqkv.accumulate;
      heads.query_weight = args.query_weight.data<A>();
      heads.key_weight = args.key_weight.data<A>();
      heads.inv_rms = args.inv_rms.data<A>();
      heads.partial = partial.data<A>();
      head_norm_grad_kernel<<<kPieces / kWarps, kThreads, 0, cuda_stream()>>>(heads);
      check_launch("head_norm_grad");
      if (args.dquery_weight) add_column_sums<A>("head_norm_grad", partial, 0, args.dquery_weight);
      if (args.dkey_weight) add_column_sums<A>("head_norm_grad", partial, width, args.dkey_weight);
    });
  }
};

}  // namespace

const HeadNormKernels& cuda_head_norm() {
  static const CudaHeadNorm kernels;
  return kernels;
}

}  // namespace infini
