#include "tensor/ops/memory.h"
#include "tensor/ops/memory_fast.cuh"

namespace infini {
namespace {

// The kernels for any type and width. memory_fast.cuh has those for bf16 and the usual widths.

// U | u = sigma(K)^T [V | 1].
template <class T>
struct SumsProduct {
  using A = Accumulator<T>;
  static constexpr bool kXByDepth = false, kYByDepth = false;
  int rows, columns, depth;
  MappedHeads<Native<T>> keys;
  Heads<Native<T>> values;
  A *matrix, *normalizer;

  __device__ A x(int head, int row, int token) const { return keys.at(head, token, row); }
  __device__ A y(int head, int token, int column) const {
    return column < rows ? A(values.row(head, token)[column]) : A(1);
  }
  __device__ void store(int head, int row, int column, A sum) const {
    const std::int64_t at = std::int64_t{head} * rows + row;
    (column < rows ? matrix[at * rows + column] : normalizer[at]) = sum;
  }
};

// dV = sigma(K) dU.
template <class T>
struct ValueGradProduct {
  using A = Accumulator<T>;
  static constexpr bool kXByDepth = true, kYByDepth = false;
  int rows, columns, depth;
  MappedHeads<Native<T>> keys;
  const A* dmatrix;
  Heads<Native<T>> dvalues;
  bool accumulate;

  __device__ A x(int head, int token, int d) const { return keys.at(head, token, d); }
  __device__ A y(int head, int d, int column) const {
    return dmatrix[(std::int64_t{head} * columns + d) * columns + column];
  }
  __device__ void store(int head, int token, int column, A sum) const {
    put(dvalues.row(head, token) + column, sum, accumulate);
  }
};

// dK = (V dU^T + du) sigma'(K).
template <class T>
struct KeyGradProduct {
  using A = Accumulator<T>;
  static constexpr bool kXByDepth = true, kYByDepth = true;
  int rows, columns, depth;
  Heads<Native<T>> values;
  MappedHeads<Native<T>> keys;
  const A *dmatrix, *dnormalizer;
  Heads<Native<T>> dkeys;
  bool accumulate;

  __device__ A x(int head, int token, int d) const { return A(values.row(head, token)[d]); }
  __device__ A y(int head, int d, int column) const {
    return dmatrix[(std::int64_t{head} * columns + column) * columns + d];
  }
  __device__ void store(int head, int token, int column, A sum) const {
    if (dnormalizer) sum += dnormalizer[std::int64_t{head} * columns + column];
    put(dkeys.row(head, token) + column, sum * sigma_slope(keys.at(head, token, column)),
        accumulate);
  }
};

// A = k^T diag(1 / denominator) k.
template <class T>
struct OverlapProduct {
  using A = Accumulator<T>;
  static constexpr bool kXByDepth = false, kYByDepth = false;
  int rows, columns, depth;
  MappedHeads<Native<T>> keys;
  const A* reading;
  A eps;
  A* overlap;

  __device__ A x(int head, int row, int token) const { return keys.at(head, token, row); }
  __device__ A y(int head, int token, int column) const {
    const A read = reading[std::int64_t{head} * depth + token];
    return keys.at(head, token, column) / (read > eps ? read : eps);
  }
  __device__ void store(int head, int row, int column, A sum) const {
    overlap[(std::int64_t{head} * rows + row) * columns + column] = sum;
  }
};

// k (dA + dA^T) / denominator: both factors k of A at once.
template <class T>
struct OverlapGradProduct {
  using A = Accumulator<T>;
  static constexpr bool kXByDepth = true, kYByDepth = false;
  int rows, columns, depth;
  MappedHeads<Native<T>> keys;
  const A *doverlap, *reading;
  A eps;
  A* from_numerator;

  __device__ A x(int head, int token, int d) const { return keys.at(head, token, d); }
  __device__ A y(int head, int d, int column) const {
    const A* matrix = doverlap + std::int64_t{head} * columns * columns;
    return matrix[d * columns + column] + matrix[column * columns + d];
  }
  __device__ void store(int head, int token, int column, A sum) const {
    const std::int64_t at = std::int64_t{head} * rows + token;
    from_numerator[at * columns + column] = sum / (reading[at] > eps ? reading[at] : eps);
  }
};

// dz = sum_t e_t sigma(K_t).
template <class T>
struct NormalizerGradProduct {
  using A = Accumulator<T>;
  static constexpr bool kXByDepth = false, kYByDepth = false;
  int rows, columns, depth;
  MappedHeads<Native<T>> keys;
  const A* e;
  A* dnormalizer;
  bool accumulate;

  __device__ A x(int head, int row, int token) const { return keys.at(head, token, row); }
  __device__ A y(int head, int token, int) const { return e[std::int64_t{head} * depth + token]; }
  __device__ void store(int head, int row, int, A sum) const {
    put(dnormalizer + std::int64_t{head} * rows + row, sum, accumulate);
  }
};

class CudaMemory final : public MemoryKernels {
 public:
  void sums(const Sums& args) const override {
    if (has_fast_kernels(args.qkv, args.layout))
      return args.layout.head_width == 64 ? FastMemory<64>::sums(args)
                                          : FastMemory<128>::sums(args);
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const Sizes n(args.layout);
      tiled_product<A>("memory_sums", n.heads,
                       SumsProduct<T>{n.width, n.width + 1, n.tokens,
                                      keys_of<T>(args.qkv, args.layout, args.keep),
                                      values_of<T>(args.qkv, args.layout), args.matrix.data<A>(),
                                      args.normalizer.data<A>()});
    });
  }

  void sums_grad(const SumsGrad& args) const override {
    if (has_fast_kernels(args.qkv, args.layout))
      return args.layout.head_width == 64 ? FastMemory<64>::sums_grad(args)
                                          : FastMemory<128>::sums_grad(args);
    if (!args.dqkv) return;
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const Sizes n(args.layout);
      const int depth = args.dmatrix ? n.width : 0;
      const auto keys = keys_of<T>(args.qkv, args.layout, args.keep);
      const bool accumulate = args.dqkv.accumulate;
      tiled_product<A>(
          "memory_sums_grad", n.heads,
          ValueGradProduct<T>{n.tokens, n.width, depth, keys, data<A>(args.dmatrix),
                              values_of<T>(args.dqkv.tensor, args.layout), accumulate});
      tiled_product<A>(
          "memory_sums_grad", n.heads,
          KeyGradProduct<T>{n.tokens, n.width, depth, values_of<T>(args.qkv, args.layout), keys,
                            data<A>(args.dmatrix), data<A>(args.dnormalizer),
                            keys_of<T>(args.dqkv.tensor, args.layout, {}).heads, accumulate});
    });
  }

  void overlap(const Overlap& args) const override {
    if (has_fast_kernels(args.qkv, args.layout))
      return args.layout.head_width == 64 ? FastMemory<64>::overlap(args)
                                          : FastMemory<128>::overlap(args);
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const Sizes n(args.layout);
      const auto keys = keys_of<T>(args.qkv, args.layout, args.keep);
      const Tensor reading = readings<T>(keys, n.heads, args.normalizer, 1);
      tiled_product<A>("memory_overlap", n.heads,
                       OverlapProduct<T>{n.width, n.width, n.tokens, keys, reading.data<A>(),
                                         A(args.eps), args.overlap.data<A>()});
    });
  }

  // With w_t = k_t / den_t:  dk = (k (dA + dA^T)) / den + e z, where e = -(dw . w) / den is half of
  // what token_grad finds, because both factors k are in that product.
  void overlap_grad(const OverlapGrad& args) const override {
    if (has_fast_kernels(args.qkv, args.layout))
      return args.layout.head_width == 64 ? FastMemory<64>::overlap_grad(args)
                                          : FastMemory<128>::overlap_grad(args);
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const Sizes n(args.layout);
      const auto keys = keys_of<T>(args.qkv, args.layout, args.keep);
      const Tensor reading = readings<T>(keys, n.heads, args.normalizer, 1);
      const Tensor e = Tensor::empty_like(reading);
      const Tensor from_numerator = Tensor::empty(Shape{n.heads, args.layout.tokens, n.width},
                                                  reading.dtype(), reading.device());
      tiled_product<A>(
          "memory_overlap_grad", n.heads,
          OverlapGradProduct<T>{n.tokens, n.width, n.width, keys, args.doverlap.data<A>(),
                                reading.data<A>(), A(args.eps), from_numerator.data<A>()});
      token_grad<T>("memory_overlap_grad",
                    {.x = keys,
                     .group = 1,
                     .normalizer = args.normalizer.data<A>(),
                     .reading = reading.data<A>(),
                     .from_numerator = from_numerator.data<A>(),
                     .eps = A(args.eps),
                     .share = A(0.5),
                     .dx = keys_of<T>(args.dqkv.tensor, args.layout, {}).heads,
                     .accumulate = args.dqkv.accumulate,
                     .e = e.data<A>(),
                     .d = nullptr},
                    n.heads);
      if (args.dnormalizer)
        tiled_product<A>("memory_overlap_grad", n.heads,
                         NormalizerGradProduct<T>{n.width, 1, n.tokens, keys, e.data<A>(),
                                                  args.dnormalizer.tensor.data<A>(),
                                                  args.dnormalizer.accumulate});
    });
  }

 private:
  struct Sizes {
    std::int64_t heads;  // key/value heads of all segments
    int tokens, width;

    explicit Sizes(const HeadLayout& layout)
        : heads(layout.batch * layout.segments * layout.kv_heads),
          tokens(static_cast<int>(layout.tokens)),
          width(layout.head_width) {}
  };
  template <class T>
  static MappedHeads<Native<T>> keys_of(const Tensor& qkv, const HeadLayout& layout,
                                        const Tensor& keep) {
    return mapped_heads_in<T>(qkv, layout, layout.key_columns(), keep);
  }
  template <class T>
  static Heads<Native<T>> values_of(const Tensor& qkv, const HeadLayout& layout) {
    return heads_in<T>(qkv, layout, layout.value_columns());
  }
  template <class A>
  static const A* data(const Tensor& tensor) {
    return tensor ? tensor.data<A>() : nullptr;
  }
};

}  // namespace

const MemoryKernels& cuda_memory() {
  static const CudaMemory kernels;
  return kernels;
}

}  // namespace infini
