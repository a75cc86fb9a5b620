#include "tensor/ops/marked_attention.h"

#include <algorithm>
#include <limits>

#include "tensor/ops/gemm.h"
#include "tensor/ops/scalar_math.h"
#include "tensor/ops/tile.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

using Attention = MarkedAttentionKernels::Attention;
using AttentionGrad = MarkedAttentionKernels::AttentionGrad;

constexpr std::int64_t kQueryTile = 64;  // rows of scores alive at a time in a thread

enum Buffer { kScores, kScoresGrad, kRows, kKeyGrad, kValueGrad };

// What one head reads of one batch row.
template <class T>
struct Places {
  const T *query, *key, *value;
  const std::uint8_t* seen;
  std::int64_t query_leading, key_leading, width, count;

  Places(const Attention& args, std::int64_t b, int head)
      : query_leading(args.layout.query_width()),
        key_leading(args.key_width()),
        width(args.layout.head_width),
        count(args.places()) {
    const std::int64_t column = head / args.layout.group() * width;
    query = args.queries.data<T>() + b * args.layout.tokens * query_leading + head * width;
    key = args.keys.data<T>() + b * count * key_leading + column;
    value = args.values.data<T>() + b * count * key_leading + column;
    seen = args.seen.data<std::uint8_t>() + b * count;
  }
};

class CpuMarkedAttention final : public MarkedAttentionKernels {
 public:
  void attention(const Attention& args, const Tensor& y) const override {
    dispatch_float(args.queries.dtype(), [&]<class T>() {
      parallel_for(args.layout.batch * args.layout.heads, [&](std::int64_t task) {
        forward<T>(args, y, task / args.layout.heads, static_cast<int>(task % args.layout.heads));
      });
    });
  }

  void attention_grad(const AttentionGrad& args) const override {
    dispatch_float(args.dy.dtype(), [&]<class T>() {
      const HeadLayout& layout = args.forward.layout;
      parallel_for(layout.batch * layout.kv_heads, [&](std::int64_t task) {
        backward<T>(args, task / layout.kv_heads, static_cast<int>(task % layout.kv_heads));
      });
    });
  }

 private:
  // The probabilities of queries from `begin` on over the places that the last of them reaches,
  // rows `count` apart; zeros where a query reads nothing.
  template <class T, class A = Accumulator<T>>
  static A* attend(const Attention& args, const Places<T>& in, std::int64_t begin,
                   std::int64_t rows) {
    A* scores = scratch<A, kScores>(kQueryTile * in.count);
    const std::int64_t reached = args.reach(begin + rows - 1);
    gemm(false, true, rows, reached, in.width, in.query + begin * in.query_leading,
         in.query_leading, in.key, in.key_leading, scores, in.count, false);
    const A scale = A(args.options.scale);
    for (std::int64_t r = 0; r < rows; ++r) {
      A* row = scores + r * in.count;
      const std::int64_t reach = args.reach(begin + r);
      A highest = -std::numeric_limits<A>::infinity(), sum = 0;
      for (std::int64_t j = 0; j < reach; ++j)
        if (in.seen[j]) highest = std::max(highest, row[j]);
      for (std::int64_t j = 0; j < reached; ++j) {
        row[j] = j < reach && in.seen[j] ? fast_exp(scale * (row[j] - highest)) : A(0);
        sum += row[j];
      }
      const A inverse = sum > 0 ? A(1) / sum : A(0);
      for (std::int64_t j = 0; j < reached; ++j) row[j] *= inverse;
    }
    return scores;
  }

  template <class T>
  static void forward(const Attention& args, const Tensor& y, std::int64_t b, int head) {
    using A = Accumulator<T>;
    const std::int64_t queries = args.layout.tokens, leading = args.layout.query_width();
    const Places<T> in(args, b, head);
    T* out = y.data<T>() + b * queries * leading + head * in.width;
    for (std::int64_t begin = 0; begin < queries; begin += kQueryTile) {
      const std::int64_t rows = std::min(kQueryTile, queries - begin);
      const A* scores = attend(args, in, begin, rows);
      A* tile = scratch<A, kRows>(kQueryTile * in.width);
      gemm(false, false, rows, in.width, args.reach(begin + rows - 1), scores, in.count, in.value,
           in.key_leading, tile, in.width, false);
      store_tile(tile, rows, in.width, out + begin * leading, leading, false);
    }
  }

  // With P the probabilities and dP = dy V^T:  dS = scale P (dP - sum_j P dP),  dq = dS K,
  // dK = dS^T q,  dV = P^T dy. Heads of a group and tiles of queries add one after the other.
  template <class T>
  static void backward(const AttentionGrad& args, std::int64_t b, int kv_head) {
    using A = Accumulator<T>;
    const Attention& given = args.forward;
    const HeadLayout& layout = given.layout;
    const std::int64_t width = layout.head_width, queries = layout.tokens, count = given.places(),
                       leading = layout.query_width(), key_leading = given.key_width();
    A* dkey = scratch<A, kKeyGrad>(count * width);
    A* dvalue = scratch<A, kValueGrad>(count * width);
    std::fill_n(dkey, count * width, A(0));
    std::fill_n(dvalue, count * width, A(0));
    for (int head = kv_head * layout.group(); head < (kv_head + 1) * layout.group(); ++head) {
      const Places<T> in(given, b, head);
      const std::int64_t first = b * queries * leading + head * width;
      for (std::int64_t begin = 0; begin < queries; begin += kQueryTile) {
        const std::int64_t rows = std::min(kQueryTile, queries - begin),
                           reached = given.reach(begin + rows - 1);
        const A* scores = attend(given, in, begin, rows);
        A* dscores = scratch<A, kScoresGrad>(kQueryTile * count);
        const T* dy = args.dy.data<T>() + first + begin * leading;
        gemm(false, true, rows, reached, width, dy, leading, in.value, key_leading, dscores, count,
             false);
        gemm(true, false, reached, width, rows, scores, count, dy, leading, dvalue, width, true);
        for (std::int64_t r = 0; r < rows; ++r) {
          const A *row = scores + r * count, delta = dot(row, dscores + r * count, reached);
          for (std::int64_t j = 0; j < reached; ++j)
            dscores[r * count + j] =
                A(given.options.scale) * row[j] * (dscores[r * count + j] - delta);
        }
        gemm(true, false, reached, width, rows, dscores, count, in.query + begin * leading, leading,
             dkey, width, true);
        if (!args.dqueries) continue;
        A* tile = scratch<A, kRows>(kQueryTile * width);
        gemm(false, false, rows, width, reached, dscores, count, in.key, key_leading, tile, width,
             false);
        store_tile(tile, rows, width, args.dqueries.tensor.data<T>() + first + begin * leading,
                   leading, args.dqueries.accumulate);
      }
    }
    const std::int64_t place = b * count * key_leading + kv_head * width;
    if (args.dkeys)
      store_tile(dkey, count, width, args.dkeys.tensor.data<T>() + place, key_leading,
                 args.dkeys.accumulate);
    if (args.dvalues)
      store_tile(dvalue, count, width, args.dvalues.tensor.data<T>() + place, key_leading,
                 args.dvalues.accumulate);
  }
};

const CpuMarkedAttention cpu_marked_attention;

const MarkedAttentionKernels& kernels(Device device) {
  return on<cpu_marked_attention, cuda_marked_attention>(device);
}

}  // namespace

Tensor marked_attention(const Tensor& queries, const Tensor& keys, const Tensor& values,
                        const Tensor& seen, const HeadLayout& layout,
                        const MarkedOptions& options) {
  layout.check_rows("marked_attention", queries, layout.query_width());
  const auto [batch, places] = seen.dims<2>();
  check(layout.segments == 1 && batch == layout.batch, "marked_attention: what is seen is ",
        seen.shape(), " of ", layout.batch, " rows of ", layout.segments, " segments");
  check(!options.own || places >= layout.tokens, "marked_attention: the queries are ",
        layout.tokens, " of ", places, " places");
  const Attention args{.queries = queries.unwatched(),
                       .keys = keys.unwatched(),
                       .values = values.unwatched(),
                       .seen = seen,
                       .layout = layout,
                       .options = options};
  const Shape expected{batch * places, args.key_width()};
  check(keys.shape() == expected && values.shape() == expected, "marked_attention: keys are ",
        keys.shape(), ", values ", values.shape(), ", expected ", expected);
  const Tensor y = Tensor::empty_like(queries);
  kernels(queries.device()).attention(args, y);
  return record(y, {queries, keys, values}, [args](const Tensor& dy, Gradients& gradients) {
    kernels(dy.device())
        .attention_grad({.forward = args,
                         .dy = dy,
                         .dqueries = gradients.of(0),
                         .dkeys = gradients.of(1),
                         .dvalues = gradients.of(2)});
  });
}

}  // namespace infini
