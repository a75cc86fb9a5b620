#include "tensor/ops/attention.h"

#include <algorithm>
#include <limits>

#include "tensor/ops/gemm.h"
#include "tensor/ops/scalar_math.h"
#include "tensor/ops/tile.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

constexpr std::int64_t kQueryTile = 64;  // rows of scores alive at a time in a thread

enum Buffer { kScores, kScoresGrad, kRows, kKeyGrad, kValueGrad };

// One segment of one batch row, seen by one head.
template <class T>
struct Segment {
  const T *query, *key,
      *value;  // first token; rows are `rotated_leading` and `value_leading` apart
  std::int64_t rotated_leading, value_leading;

  Segment(const Tensor& rotated, const Tensor& qkv, const HeadLayout& layout, std::int64_t segment,
          int head)
      : rotated_leading(layout.rotated_width()), value_leading(layout.qkv_width()) {
    const std::int64_t row = segment * layout.tokens;
    const int kv_head = head / layout.group();
    query = rotated.data<T>() + row * rotated_leading + head * layout.head_width;
    key = rotated.data<T>() + row * rotated_leading + layout.key_column(kv_head);
    value = qkv.data<T>() + row * value_leading + layout.value_column(kv_head);
  }
};

class CpuAttention final : public AttentionKernels {
 public:
  void attention(const Attention& args) const override {
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      const HeadLayout& layout = args.layout;
      parallel_for(layout.batch * layout.segments * layout.heads, [&](std::int64_t task) {
        forward<T>(args, task / layout.heads, static_cast<int>(task % layout.heads));
      });
    });
  }

  void attention_grad(const AttentionGrad& args) const override {
    zeroed(args.dqkv, args.layout.value_columns());
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      const HeadLayout& layout = args.layout;
      parallel_for(layout.batch * layout.segments * layout.kv_heads, [&](std::int64_t task) {
        backward<T>(args, task / layout.kv_heads, static_cast<int>(task % layout.kv_heads));
      });
    });
  }

 private:
  template <class T>
  static void forward(const Attention& args, std::int64_t segment, int head) {
    using A = Accumulator<T>;
    const HeadLayout& layout = args.layout;
    const std::int64_t width = layout.head_width, tokens = layout.tokens;
    const std::int64_t asked = tokens - args.first_query, leading = layout.query_width();
    const Segment<T> in(args.rotated, args.qkv, layout, segment, head);
    T* out = args.y.data<T>() + segment * asked * leading + head * width;
    A* log_sums =
        args.log_sum ? args.log_sum.data<A>() + (segment * layout.heads + head) * tokens : nullptr;

    for (std::int64_t begin = args.first_query; begin < tokens; begin += kQueryTile) {
      const std::int64_t end = std::min(begin + kQueryTile, tokens), rows = end - begin;
      A* scores = scratch<A, kScores>(kQueryTile * tokens);
      A* tile = scratch<A, kRows>(kQueryTile * width);
      gemm(false, true, rows, end, width, in.query + begin * in.rotated_leading, in.rotated_leading,
           in.key, in.rotated_leading, scores, end, false);
      for (std::int64_t r = 0; r < rows; ++r) {
        const A log_sum = softmax(scores + r * end, begin + r + 1, end, A(args.scale));
        if (log_sums) log_sums[begin + r] = log_sum;
      }
      gemm(false, false, rows, width, end, scores, end, in.value, in.value_leading, tile, width,
           false);
      store_tile(tile, rows, width, out + (begin - args.first_query) * leading, leading, false);
    }
  }

  // Turns `seen` scores into probabilities and the rest of the row into zeros; returns the
  // log-sum-exp.
  template <class A>
  static A softmax(A* row, std::int64_t seen, std::int64_t count, A scale) {
    A highest = -std::numeric_limits<A>::infinity();
#pragma omp simd reduction(max : highest)
    for (std::int64_t c = 0; c < seen; ++c) highest = row[c] > highest ? row[c] : highest;
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t c = 0; c < seen; ++c) {
      row[c] = fast_exp(scale * (row[c] - highest));
      sum += row[c];
    }
    const A inverse = A(1) / sum;
    for (std::int64_t c = 0; c < seen; ++c) row[c] *= inverse;
    std::fill(row + seen, row + count, A(0));
    return scale * highest + std::log(sum);
  }

  // With P the probabilities and D_r = sum_c dy_rc y_rc:  dS = P (dy V^T - D),  dQ = scale dS K, dK
  // = scale dS^T Q, dV = P^T dy. Heads of a group and tiles of queries add to dK and dV one after
  // the other.
  template <class T>
  static void backward(const AttentionGrad& args, std::int64_t segment, int kv_head) {
    using A = Accumulator<T>;
    const HeadLayout& layout = args.layout;
    const std::int64_t width = layout.head_width, tokens = layout.tokens,
                       leading = layout.query_width();
    A* dkey = scratch<A, kKeyGrad>(tokens * width);
    A* dvalue = scratch<A, kValueGrad>(tokens * width);
    std::fill(dkey, dkey + tokens * width, A(0));
    std::fill(dvalue, dvalue + tokens * width, A(0));

    for (int head = kv_head * layout.group(); head < (kv_head + 1) * layout.group(); ++head) {
      const Segment<T> in(args.rotated, args.qkv, layout, segment, head);
      const T* y = args.y.data<T>() + segment * tokens * leading + head * width;
      const T* dy = args.dy.data<T>() + segment * tokens * leading + head * width;
      const A* log_sums = args.log_sum.data<A>() + (segment * layout.heads + head) * tokens;

      for (std::int64_t begin = 0; begin < tokens; begin += kQueryTile) {
        const std::int64_t end = std::min(begin + kQueryTile, tokens), rows = end - begin;
        A* scores = scratch<A, kScores>(kQueryTile * tokens);
        A* dscores = scratch<A, kScoresGrad>(kQueryTile * tokens);
        const T* query = in.query + begin * in.rotated_leading;
        const T* dy_tile = dy + begin * leading;
        gemm(false, true, rows, end, width, query, in.rotated_leading, in.key, in.rotated_leading,
             scores, end, false);
        gemm(false, true, rows, end, width, dy_tile, leading, in.value, in.value_leading, dscores,
             end, false);
        for (std::int64_t r = 0; r < rows; ++r)
          softmax_grad(scores + r * end, dscores + r * end, begin + r + 1, end, A(args.scale),
                       log_sums[begin + r],
                       row_dot(y + (begin + r) * leading, dy_tile + r * leading, width));
        gemm(true, false, end, width, rows, scores, end, dy_tile, leading, dvalue, width, true);
        gemm(true, false, end, width, rows, dscores, end, query, in.rotated_leading, dkey, width,
             true);
        if (args.drotated) {
          A* tile = scratch<A, kRows>(kQueryTile * width);
          gemm(false, false, rows, width, end, dscores, end, in.key, in.rotated_leading, tile,
               width, false);
          T* out = args.drotated.tensor.data<T>() +
                   (segment * tokens + begin) * in.rotated_leading + head * width;
          store_tile(tile, rows, width, out, in.rotated_leading, args.drotated.accumulate);
        }
      }
    }
    const std::int64_t row = segment * tokens;
    if (args.drotated)
      store_tile(dkey, tokens, width,
                 args.drotated.tensor.data<T>() + row * layout.rotated_width() +
                     layout.key_column(kv_head),
                 layout.rotated_width(), args.drotated.accumulate);
    if (args.dqkv)
      store_tile(
          dvalue, tokens, width,
          args.dqkv.tensor.data<T>() + row * layout.qkv_width() + layout.value_column(kv_head),
          layout.qkv_width(), true);
  }

  // Scores become probabilities, dscores become the gradient of the unscaled scores.
  template <class A>
  static void softmax_grad(A* row, A* drow, std::int64_t seen, std::int64_t count, A scale,
                           A log_sum, A delta) {
#pragma omp simd
    for (std::int64_t c = 0; c < seen; ++c) {
      row[c] = fast_exp(scale * row[c] - log_sum);
      drow[c] = scale * row[c] * (drow[c] - delta);
    }
    std::fill(row + seen, row + count, A(0));
    std::fill(drow + seen, drow + count, A(0));
  }

  template <class T>
  static Accumulator<T> row_dot(const T* x, const T* y, std::int64_t count) {
    using A = Accumulator<T>;
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t c = 0; c < count; ++c) sum += A(x[c]) * A(y[c]);
    return sum;
  }
};

const CpuAttention cpu_attention;

}  // namespace

const AttentionKernels& attention_kernels(Device device) {
  return on<cpu_attention, cuda_attention>(device);
}

Attended attend(const Tensor& rotated, const Tensor& qkv, const HeadLayout& layout, double scale) {
  const Attended made{
      .rotated = rotated,
      .qkv = qkv,
      .layout = layout,
      .scale = scale,
      .y = Tensor::empty({layout.rows(), layout.query_width()}, qkv.dtype(), qkv.device()),
      .log_sum = Tensor::empty({layout.batch, layout.segments, layout.heads, layout.tokens},
                               accumulator_of(qkv.dtype()), qkv.device())};
  attention_kernels(qkv.device())
      .attention({.rotated = rotated,
                  .qkv = qkv,
                  .layout = layout,
                  .scale = scale,
                  .first_query = 0,
                  .y = made.y,
                  .log_sum = made.log_sum});
  return made;
}

AttentionKernels::AttentionGrad Attended::grad_of(const Tensor& dy) const {
  return {.rotated = rotated,
          .qkv = qkv,
          .layout = layout,
          .scale = scale,
          .y = y,
          .log_sum = log_sum,
          .dy = dy};
}

Tensor local_attention(const Tensor& rotated, const Tensor& qkv, const HeadLayout& layout,
                       double scale) {
  layout.check_rows("local_attention", rotated, layout.rotated_width());
  layout.check_rows("local_attention", qkv, layout.qkv_width());
  const Attended made = attend(rotated, qkv, layout, scale);
  return record(made.y, {rotated, qkv}, [=](const Tensor& dy, Gradients& gradients) {
    AttentionKernels::AttentionGrad args = made.grad_of(dy);
    args.drotated = gradients.of(0);
    args.dqkv = gradients.of(1, layout.value_columns());
    attention_kernels(dy.device()).attention_grad(args);
  });
}

Tensor window_attention(const Tensor& rotated, const Tensor& qkv, const HeadLayout& layout,
                        double scale, std::int64_t first_query) {
  layout.check_rows("window_attention", rotated, layout.rotated_width());
  layout.check_rows("window_attention", qkv, layout.qkv_width());
  check(layout.segments == 1, "window_attention: ", layout.segments, " segments, expected 1");
  const std::int64_t asked = layout.tokens - first_query;
  const Tensor y =
      Tensor::empty({layout.batch * asked, layout.query_width()}, qkv.dtype(), qkv.device());
  attention_kernels(qkv.device())
      .attention({.rotated = rotated,
                  .qkv = qkv,
                  .layout = layout,
                  .scale = scale,
                  .first_query = first_query,
                  .y = y,
                  .log_sum = {}});
  return y;
}

}  // namespace infini
