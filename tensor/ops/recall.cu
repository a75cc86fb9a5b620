#include "tensor/ops/recall.h"
#include "tensor/ops/recall_fast.cuh"
#include "tensor/ops/recall_hopper.cuh"

namespace infini {
namespace {

// The kernels for any type and width. recall_fast.cuh has those for bf16 and the usual widths,
// recall_hopper.cuh another for Hopper.

// What every kernel of this family knows. Query heads are numbered through all segments, and
// `group` neighbours share a state.
template <class T>
struct Reading {
  using A = Accumulator<T>;
  MappedHeads<Native<T>> queries;
  int group;
  const A *matrix, *normalizer;
  const A* gates;    // sigmoid(gate) of each query head, 0 where it is taken as closed
  const A* reading;  // [query heads, tokens]
  A eps;

  __device__ A inverse(int head, int token) const {
    const A read = reading[std::int64_t{head} * queries.heads.tokens + token];
    return A(1) / (read > eps ? read : eps);
  }
  __device__ A m(int head, int row, int column) const {
    const int width = queries.heads.width;
    return matrix[(std::int64_t{head / group} * width + row) * width + column];
  }
};

// One warp for each query head of each segment.
template <class A>
__global__ void gates_kernel(const A* gate, const A* normalizer, int heads, int group, int width,
                             bool bypass_empty, int count, A* gates) {
  const int head = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (head >= count) return;
  bool written = !bypass_empty;
  for (int c = lane; c < width; c += 32)
    if (normalizer[std::int64_t{head / group} * width + c] != 0) written = true;
  written = __any_sync(0xffffffff, written);
  if (lane == 0) gates[head] = written ? A(1) / (A(1) + exp(-gate[head % heads])) : A(0);
}

// y = g (q M) / denominator + (1 - g) local.
template <class T>
struct RecallProduct {
  using A = Accumulator<T>;
  static constexpr bool kXByDepth = true, kYByDepth = false;
  int rows, columns, depth;
  Reading<T> from;
  Heads<Native<T>> local, output;

  __device__ A x(int head, int token, int d) const { return from.queries.at(head, token, d); }
  __device__ A y(int head, int d, int column) const { return from.m(head, d, column); }
  __device__ void store(int head, int token, int column, A sum) const {
    const A gate = from.gates[head], kept = A(local.row(head, token)[column]);
    output.row(head, token)[column] =
        Native<T>(gate * from.inverse(head, token) * sum + (A(1) - gate) * kept);
  }
};

// n M^T with n = g dy / denominator.
template <class T>
struct NumeratorGradProduct {
  using A = Accumulator<T>;
  static constexpr bool kXByDepth = true, kYByDepth = true;
  int rows, columns, depth;
  Reading<T> from;
  Heads<Native<T>> dy;
  A* from_numerator;

  __device__ A x(int head, int token, int d) const { return A(dy.row(head, token)[d]); }
  __device__ A y(int head, int d, int column) const { return from.m(head, column, d); }
  __device__ void store(int head, int token, int column, A sum) const {
    from_numerator[(std::int64_t{head} * rows + token) * columns + column] =
        from.gates[head] * from.inverse(head, token) * sum;
  }
};

// dM | dz = q^T [n | e], over the tokens of all query heads of a group.
template <class T>
struct StateGradProduct {
  using A = Accumulator<T>;
  static constexpr bool kXByDepth = false, kYByDepth = false;
  int rows, columns, depth;
  Reading<T> from;
  Heads<Native<T>> dy;
  const A* e;
  A *dmatrix, *dnormalizer;  // either may be null
  bool add_matrix, add_normalizer;

  __device__ A x(int state, int row, int d) const {
    return from.queries.at(state * from.group + d / dy.tokens, d % dy.tokens, row);
  }
  __device__ A y(int state, int d, int column) const {
    const int head = state * from.group + d / dy.tokens, token = d % dy.tokens;
    if (column == rows) return e[std::int64_t{head} * dy.tokens + token];
    return from.gates[head] * from.inverse(head, token) * A(dy.row(head, token)[column]);
  }
  __device__ void store(int state, int row, int column, A sum) const {
    const std::int64_t at = std::int64_t{state} * rows + row;
    if (column == rows) {
      if (dnormalizer) put(dnormalizer + at, sum, add_normalizer);
    } else if (dmatrix) {
      put(dmatrix + at * rows + column, sum, add_matrix);
    }
  }
};

// dlocal = (1 - g) dy, and what one head of one segment gives to its gate: (1 - g) sum_t (d_t - g
// dy_t . local_t), where d_t = q_t . (n_t M^T) = g dy_t . A_mem_t. One block for each of them.
template <class T>
__global__ void __launch_bounds__(256)
    local_grad_kernel(const Accumulator<T>* gates, const Accumulator<T>* d, Heads<Native<T>> local,
                      Heads<Native<T>> dy, Heads<Native<T>> dlocal, bool accumulate,
                      Accumulator<T>* partial) {
  using A = Accumulator<T>;
  const int head = blockIdx.x;
  const A gate = gates[head];
  A sum = 0;
  for (int i = threadIdx.x; i < dy.tokens * dy.width; i += 256) {
    const int token = i / dy.width, c = i % dy.width;
    const A upstream = A(dy.row(head, token)[c]);
    sum -= gate * upstream * A(local.row(head, token)[c]);
    if (c == 0) sum += d[std::int64_t{head} * dy.tokens + token];
    if (dlocal.first) put(dlocal.row(head, token) + c, (A(1) - gate) * upstream, accumulate);
  }
  sum = block_sum<256>(sum);
  if (threadIdx.x == 0) partial[head] = (A(1) - gate) * sum;
}

// dgate from partial [parts, H], one block for each head.
template <class A>
__global__ void __launch_bounds__(256)
    gate_grad_kernel(const A* partial, int parts, int heads, A* dgate, bool accumulate) {
  A sum = 0;
  for (int i = threadIdx.x; i < parts; i += 256)
    sum += partial[std::int64_t{i} * heads + blockIdx.x];
  sum = block_sum<256>(sum);
  if (threadIdx.x == 0) put(dgate + blockIdx.x, sum, accumulate);
}

class CudaRecall final : public RecallKernels {
 public:
  void recall(const Recall& args) const override {
    if (has_fast_kernels(args.qkv, args.layout))
      return args.layout.head_width == 64 ? FastRecall<64>::recall(args)
                                          : FastRecall<128>::recall(args);
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      const Scratch<T> from(args);
      const int tokens = static_cast<int>(args.layout.tokens), width = args.layout.head_width;
      tiled_product<Accumulator<T>>(
          "memory_recall", from.heads,
          RecallProduct<T>{tokens, width, width, from.reading, rows_of<T>(args.local, args.layout),
                           rows_of<T>(args.y, args.layout)});
    });
  }

  bool makes_row_dots(const RecallGrad& args) const override {
    return has_fast_kernels(args.qkv, args.layout) && takes_hopper(args);
  }

  // With q = sigma(Q), n = g dy / den, W = n M^T:  e = -(q . W) / den,  dq = W + e z,  dM = q^T n,
  // dz = q^T e. The recalled values themselves are not needed: dy . A_mem = (q . W) / g.
  void recall_grad(const RecallGrad& args) const override {
    if (makes_row_dots(args))
      return FastRecall<128>::recall_grad(args, hopper_recall_grad_kernel,
                                          sizeof(HopperRecallGradShared));
    if (has_fast_kernels(args.qkv, args.layout))
      return args.layout.head_width == 64 ? FastRecall<64>::recall_grad(args)
                                          : FastRecall<128>::recall_grad(args);
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const Scratch<T> from(args);
      const HeadLayout& layout = args.layout;
      const int tokens = static_cast<int>(layout.tokens), width = layout.head_width;
      const auto dy = rows_of<T>(args.dy, layout);
      const auto scratch = [&](const Shape& shape) {
        return Tensor::empty(shape, args.gate.dtype(), args.gate.device());
      };
      const Tensor from_numerator = scratch(Shape{from.heads, tokens, width});
      const Tensor e = scratch(Shape{from.heads, tokens}), d = scratch(Shape{from.heads, tokens});
      tiled_product<A>("memory_recall_grad", from.heads,
                       NumeratorGradProduct<T>{tokens, width, width, from.reading, dy,
                                               from_numerator.data<A>()});
      token_grad<T>("memory_recall_grad",
                    {.x = from.reading.queries,
                     .group = layout.group(),
                     .normalizer = from.reading.normalizer,
                     .reading = from.reading.reading,
                     .from_numerator = from_numerator.data<A>(),
                     .eps = from.reading.eps,
                     .share = A(1),
                     .dx = heads_in<T>(args.dqkv.tensor, layout, layout.query_columns()),
                     .accumulate = args.dqkv.accumulate,
                     .e = e.data<A>(),
                     .d = d.data<A>()},
                    from.heads);
      if (args.dmatrix || args.dnormalizer)
        tiled_product<A>(
            "memory_recall_grad", from.heads / layout.group(),
            StateGradProduct<T>{width, width + 1, layout.group() * tokens, from.reading, dy,
                                e.data<A>(), data<A>(args.dmatrix), data<A>(args.dnormalizer),
                                args.dmatrix.accumulate, args.dnormalizer.accumulate});
      const Tensor partial = scratch(Shape{layout.batch * layout.segments, layout.heads});
      launch("memory_recall_grad", local_grad_kernel<T>, static_cast<unsigned>(from.heads), 256, 0,
             from.reading.gates, d.data<A>(), rows_of<T>(args.local, layout), dy,
             rows_of<T>(args.dlocal.tensor, layout), args.dlocal.accumulate, partial.data<A>());
      add_gates<A>(partial, args.dgate);
    });
  }

 private:
  // dgate (+)= the sum over partial [parts, H].
  template <class A>
  static void add_gates(const Tensor& partial, const GradTarget& dgate) {
    const auto [parts, heads] = partial.dims<2>();
    if (dgate)
      launch("memory_recall_grad", gate_grad_kernel<A>, static_cast<unsigned>(heads), 256, 0,
             partial.data<A>(), static_cast<int>(parts), static_cast<int>(heads),
             dgate.tensor.data<A>(), dgate.accumulate);
  }

  // A Reading, and the tensors that it points to.
  template <class T>
  struct Scratch {
    using A = Accumulator<T>;
    std::int64_t heads;  // query heads of all segments
    Tensor gates, readings_of_tokens;
    Reading<T> reading;

    template <class Args>
    explicit Scratch(const Args& args)
        : heads(args.layout.batch * args.layout.segments * args.layout.heads),
          gates(Tensor::empty(Shape{heads}, args.gate.dtype(), args.gate.device())) {
      const int group = args.layout.group();
      const auto queries =
          mapped_heads_in<T>(args.qkv, args.layout, args.layout.query_columns(), {});
      launch("memory_recall", gates_kernel<A>, blocks_for(heads, 8), 256, 0,
             args.gate.template data<A>(), args.normalizer.template data<A>(), args.layout.heads,
             group, args.layout.head_width, args.options.bypass_empty, static_cast<int>(heads),
             gates.data<A>());
      readings_of_tokens = readings<T>(queries, heads, args.normalizer, group);
      reading = {.queries = queries,
                 .group = group,
                 .matrix = args.matrix.template data<A>(),
                 .normalizer = args.normalizer.template data<A>(),
                 .gates = gates.data<A>(),
                 .reading = readings_of_tokens.data<A>(),
                 .eps = A(args.options.eps)};
    }
  };

  template <class T>
  static Heads<Native<T>> rows_of(const Tensor& rows, const HeadLayout& layout) {
    return heads_in<T>(rows, layout, {0, layout.query_width()});
  }
  template <class A>
  static A* data(const GradTarget& target) {
    return target ? target.tensor.data<A>() : nullptr;
  }
};

}  // namespace

const RecallKernels& cuda_recall() {
  static const CudaRecall kernels;
  return kernels;
}

}  // namespace infini
