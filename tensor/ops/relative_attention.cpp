#include "tensor/ops/relative_attention.h"

#include <algorithm>
#include <limits>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/gemm.h"
#include "tensor/ops/scalar_math.h"
#include "tensor/ops/tile.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

using Attention = RelativeAttentionKernels::Attention;
using AttentionGrad = RelativeAttentionKernels::AttentionGrad;

constexpr std::int64_t kQueryTile = 64;  // rows of scores alive at a time in a thread

enum Buffer {
  kContent,   // q + u
  kPosition,  // q + v
  kScores,
  kByDistance,  // what scores, or their gradients, are of distances
  kScoresGrad,
  kRows,
  kKeyGrad,
  kValueGrad,
  kCachedKeyGrad,
  kCachedValueGrad
};

// What one head reads of one segment: M cached tokens, then T of its own.
template <class T>
struct Segment {
  const T *query, *key, *value, *cached_key, *cached_value, *distance_key;
  const std::uint8_t* seen;  // [M]
  std::int64_t leading, cached_leading, distance_leading;
  std::int64_t cache, tokens, width;

  Segment(const Attention& args, std::int64_t b, std::int64_t s, int head)
      : leading(args.layout.qkv_width()),
        cached_leading(2 * std::int64_t{args.layout.kv_heads} * args.layout.head_width),
        distance_leading(cached_leading / 2),
        cache(args.cache_tokens),
        tokens(args.layout.tokens),
        width(args.layout.head_width) {
    const HeadLayout& layout = args.layout;
    const int kv_head = head / layout.group();
    const T* own = args.qkv.data<T>() + (b * layout.segments + s) * tokens * leading;
    query = own + head * width;
    key = own + layout.key_column(kv_head);
    value = own + layout.value_column(kv_head);
    cached_key = args.cached.data<T>() + args.first_cached(b, s) * cached_leading + kv_head * width;
    cached_value = cached_key + distance_leading;
    distance_key = args.positions.keys.data<T>() + kv_head * width;
    seen = args.seen.data<std::uint8_t>() + (b * (layout.segments + 1) + s) * cache;
  }

  // Keys that the last of `rows` queries from `begin` on reads.
  std::int64_t keys(std::int64_t begin, std::int64_t rows) const { return cache + begin + rows; }
  bool reads(std::int64_t query_token, std::int64_t key_place) const {
    return key_place < cache ? seen[key_place] != 0 : key_place - cache <= query_token;
  }
};

// `rows` queries of a head from `begin` on, and what is made of them.
template <class T>
struct Tile {
  using A = Accumulator<T>;
  std::int64_t begin, rows, keys;
  A *content, *position;  // [rows, K]
  A* scores;              // [rows, keys]

  Tile(const Segment<T>& in, const Attention& args, int head, std::int64_t first)
      : begin(first),
        rows(std::min(kQueryTile, in.tokens - first)),
        keys(in.keys(first, rows)),
        content(scratch<A, kContent>(kQueryTile * in.width)),
        position(scratch<A, kPosition>(kQueryTile * in.width)),
        scores(scratch<A, kScores>(kQueryTile * (in.cache + in.tokens))) {
    const A* u = args.positions.content_bias.data<A>() + head * in.width;
    const A* v = args.positions.position_bias.data<A>() + head * in.width;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < in.width; ++c) {
        const A q = A(in.query[(begin + r) * in.leading + c]);
        content[r * in.width + c] = q + u[c];
        position[r * in.width + c] = q + v[c];
      }
  }

  // Where the distance of query r and key j lies in a tile of distances [rows, keys].
  std::int64_t by_distance(const Segment<T>& in, std::int64_t r, std::int64_t j) const {
    return r * keys + in.cache + begin + r - j;
  }

  // The probabilities; zeros where a query reads nothing.
  void attend(const Segment<T>& in, A scale) const {
    A* distances = scratch<A, kByDistance>(kQueryTile * (in.cache + in.tokens));
    gemm(false, true, rows, in.cache, in.width, content, in.width, in.cached_key, in.cached_leading,
         scores, keys, false);
    gemm(false, true, rows, keys - in.cache, in.width, content, in.width, in.key, in.leading,
         scores + in.cache, keys, false);
    gemm(false, true, rows, keys, in.width, position, in.width, in.distance_key,
         in.distance_leading, distances, keys, false);
    for (std::int64_t r = 0; r < rows; ++r) {
      A* row = scores + r * keys;
      A highest = -std::numeric_limits<A>::infinity();
      for (std::int64_t j = 0; j < keys; ++j) {
        if (!in.reads(begin + r, j)) continue;
        row[j] += distances[by_distance(in, r, j)];
        highest = std::max(highest, row[j]);
      }
      A sum = 0;
      for (std::int64_t j = 0; j < keys; ++j) {
        row[j] = in.reads(begin + r, j) ? fast_exp(scale * (row[j] - highest)) : A(0);
        sum += row[j];
      }
      for (std::int64_t j = 0; j < keys; ++j) row[j] *= A(1) / sum;
    }
  }
};

class CpuRelativeAttention final : public RelativeAttentionKernels {
 public:
  void seen(const Seen& args) const override {
    const HeadLayout& layout = args.layout;
    const std::int64_t segments = layout.segments, cache = args.cache_tokens;
    const auto flags = [](const Tensor& tensor) {
      return tensor ? tensor.data<std::uint8_t>() : nullptr;
    };
    const std::uint8_t *present = flags(args.present), *keep = flags(args.keep),
                       *resets = flags(args.resets);
    std::uint8_t* seen = flags(args.seen);
    for (std::int64_t b = 0; b < layout.batch; ++b)
      for (std::int64_t s = 0; s <= segments; ++s) {
        std::int64_t start = 0;  // the first place that no reset has emptied
        for (std::int64_t n = 0; n <= std::min(s, segments - 1); ++n)
          if (resets && resets[b * segments + n]) start = cache + n * layout.tokens;
        for (std::int64_t m = 0; m < cache; ++m) {
          const std::int64_t place = s * layout.tokens + m, token = place - cache;
          const bool stands = token < 0 ? present && present[b * cache + place]
                                        : !keep || keep[b * segments * layout.tokens + token];
          seen[(b * (segments + 1) + s) * cache + m] = stands && place >= start;
        }
      }
  }

  void attention(const Attention& args, const Tensor& y) const override {
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      const HeadLayout& layout = args.layout;
      parallel_for(layout.batch * layout.segments * layout.heads, [&](std::int64_t task) {
        forward<T>(args, y, task / layout.heads, static_cast<int>(task % layout.heads));
      });
    });
  }

  void attention_grad(const AttentionGrad& args) const override {
    dispatch_float(args.forward.qkv.dtype(), [&]<class T>() {
      const HeadLayout& layout = args.forward.layout;
      const Shared shared(args.forward);
      parallel_for(layout.batch * layout.kv_heads, [&](std::int64_t task) {
        backward<T>(args, shared, task / layout.kv_heads, static_cast<int>(task % layout.kv_heads));
      });
      for (std::int64_t b = 0; b < layout.batch; ++b) {
        const auto add = [&](const GradTarget& target, const Tensor& parts) {
          if (target)
            add_into({.tensor = target.tensor, .accumulate = target.accumulate || b > 0},
                     parts.slice(b, 1).reshape(target.tensor.shape()));
        };
        add(args.dkeys, shared.dkeys);
        add(args.dcontent_bias, shared.dcontent_bias);
        add(args.dposition_bias, shared.dposition_bias);
      }
    });
  }

 private:
  // The gradients of what all rows share, of each batch row by itself: added in their order.
  struct Shared {
    Tensor dkeys, dcontent_bias, dposition_bias;  // [B, ...]

    explicit Shared(const Attention& args) {
      const DType dtype = accumulator_of(args.qkv.dtype());
      const std::int64_t batch = args.layout.batch;
      dkeys = Tensor::zeros({batch, args.positions.keys.size()}, dtype);
      dcontent_bias = Tensor::zeros({batch, args.positions.content_bias.size()}, dtype);
      dposition_bias = Tensor::zeros_like(dcontent_bias);
    }
  };

  template <class T>
  static void forward(const Attention& args, const Tensor& y, std::int64_t segment, int head) {
    using A = Accumulator<T>;
    const HeadLayout& layout = args.layout;
    const Segment<T> in(args, segment / layout.segments, segment % layout.segments, head);
    T* out = y.data<T>() + segment * in.tokens * layout.query_width() + head * in.width;
    for (std::int64_t begin = 0; begin < in.tokens; begin += kQueryTile) {
      const Tile<T> tile(in, args, head, begin);
      tile.attend(in, A(args.scale));
      A* rows = scratch<A, kRows>(kQueryTile * in.width);
      gemm(false, false, tile.rows, in.width, in.cache, tile.scores, tile.keys, in.cached_value,
           in.cached_leading, rows, in.width, false);
      gemm(false, false, tile.rows, in.width, tile.keys - in.cache, tile.scores + in.cache,
           tile.keys, in.value, in.leading, rows, in.width, in.cache > 0);
      store_tile(rows, tile.rows, in.width, out + begin * layout.query_width(),
                 layout.query_width(), false);
    }
  }

  // With P the probabilities and dP = dy V^T:  dS = scale P (dP - sum_j P dP); by content
  // dq = dS K, dK = dS^T (q + u), du = sum of dq; by position the same with r in place of K and the
  // columns of dS in the order of their distances. Segments, heads of a group and tiles of queries
  // add one after the other.
  template <class T>
  static void backward(const AttentionGrad& args, const Shared& shared, std::int64_t b,
                       int kv_head) {
    using A = Accumulator<T>;
    const Attention& given = args.forward;
    const HeadLayout& layout = given.layout;
    const std::int64_t width = layout.head_width, tokens = layout.tokens,
                       cache = given.cache_tokens, context = given.context_tokens(),
                       leading = layout.query_width();
    A* dkey = scratch<A, kKeyGrad>(tokens * width);
    A* dvalue = scratch<A, kValueGrad>(tokens * width);
    A* dcached_key = scratch<A, kCachedKeyGrad>(context * width);
    A* dcached_value = scratch<A, kCachedValueGrad>(context * width);
    std::fill_n(dcached_key, context * width, A(0));
    std::fill_n(dcached_value, context * width, A(0));
    const std::int64_t distance_leading = layout.kv_heads * width;
    A* ddistance_key =
        shared.dkeys.data<A>() + b * (cache + tokens) * distance_leading + kv_head * width;

    for (std::int64_t s = 0; s < layout.segments; ++s) {
      const std::int64_t row = (b * layout.segments + s) * tokens;
      std::fill_n(dkey, tokens * width, A(0));
      std::fill_n(dvalue, tokens * width, A(0));
      A* dcached_key_here = dcached_key + s * given.step * width;
      A* dcached_value_here = dcached_value + s * given.step * width;
      for (int head = kv_head * layout.group(); head < (kv_head + 1) * layout.group(); ++head) {
        const Segment<T> in(given, b, s, head);
        const T* dy = args.dy.data<T>() + row * leading + head * width;
        A* du = shared.dcontent_bias.data<A>() + (b * layout.heads + head) * width;
        A* dv = shared.dposition_bias.data<A>() + (b * layout.heads + head) * width;
        for (std::int64_t begin = 0; begin < tokens; begin += kQueryTile) {
          const Tile<T> tile(in, given, head, begin);
          tile.attend(in, A(given.scale));
          const std::int64_t rows = tile.rows, keys = tile.keys, own = keys - cache;
          A* dscores = scratch<A, kScoresGrad>(kQueryTile * (cache + tokens));
          A* distances = scratch<A, kByDistance>(kQueryTile * (cache + tokens));
          const T* dy_tile = dy + begin * leading;
          gemm(false, true, rows, cache, width, dy_tile, leading, in.cached_value,
               in.cached_leading, dscores, keys, false);
          gemm(false, true, rows, own, width, dy_tile, leading, in.value, in.leading,
               dscores + cache, keys, false);
          gemm(true, false, cache, width, rows, tile.scores, keys, dy_tile, leading,
               dcached_value_here, width, true);
          gemm(true, false, own, width, rows, tile.scores + cache, keys, dy_tile, leading, dvalue,
               width, true);
          softmax_grad(in, tile, A(given.scale), dscores, distances);

          A* dquery = scratch<A, kRows>(kQueryTile * width);
          gemm(false, false, rows, width, cache, dscores, keys, in.cached_key, in.cached_leading,
               dquery, width, false);
          gemm(false, false, rows, width, own, dscores + cache, keys, in.key, in.leading, dquery,
               width, cache > 0);
          add_rows(dquery, rows, width, du);
          gemm(true, false, cache, width, rows, dscores, keys, tile.content, width,
               dcached_key_here, width, true);
          gemm(true, false, own, width, rows, dscores + cache, keys, tile.content, width, dkey,
               width, true);

          gemm(true, false, keys, width, rows, distances, keys, tile.position, width, ddistance_key,
               distance_leading, true);
          // The queries with u and v are no longer needed.
          gemm(false, false, rows, width, keys, distances, keys, in.distance_key,
               in.distance_leading, tile.position, width, false);
          add_rows(tile.position, rows, width, dv);
          for (std::int64_t i = 0; i < rows * width; ++i) dquery[i] += tile.position[i];
          if (args.dqkv)
            store_tile(dquery, rows, width,
                       args.dqkv.tensor.data<T>() + (row + begin) * in.leading + head * width,
                       in.leading, args.dqkv.accumulate);
        }
      }
      if (!args.dqkv) continue;
      T* dqkv = args.dqkv.tensor.data<T>() + row * layout.qkv_width();
      store_tile(dkey, tokens, width, dqkv + layout.key_column(kv_head), layout.qkv_width(),
                 args.dqkv.accumulate);
      store_tile(dvalue, tokens, width, dqkv + layout.value_column(kv_head), layout.qkv_width(),
                 args.dqkv.accumulate);
    }
    if (!args.dcached) return;
    T* dcached =
        args.dcached.tensor.data<T>() + b * context * 2 * distance_leading + kv_head * width;
    store_tile(dcached_key, context, width, dcached, 2 * distance_leading, args.dcached.accumulate);
    store_tile(dcached_value, context, width, dcached + distance_leading, 2 * distance_leading,
               args.dcached.accumulate);
  }

  // dscores become the gradients of the unscaled scores, and `distances` the same in the order of
  // their distances, zeros where a query has none.
  template <class T, class A = Accumulator<T>>
  static void softmax_grad(const Segment<T>& in, const Tile<T>& tile, A scale, A* dscores,
                           A* distances) {
    std::fill_n(distances, tile.rows * tile.keys, A(0));
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      const A* row = tile.scores + r * tile.keys;
      A* drow = dscores + r * tile.keys;
      const A delta = dot(row, drow, tile.keys);
      const std::int64_t reach = in.cache + tile.begin + r + 1;
      for (std::int64_t j = 0; j < tile.keys; ++j) {
        drow[j] = scale * row[j] * (drow[j] - delta);
        if (j < reach) distances[tile.by_distance(in, r, j)] = drow[j];
      }
    }
  }

  // sums[c] += sum_r rows[r, c]
  template <class A>
  static void add_rows(const A* tile, std::int64_t rows, std::int64_t width, A* sums) {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < width; ++c) sums[c] += tile[r * width + c];
  }
};

const CpuRelativeAttention cpu_relative_attention;

const RelativeAttentionKernels& kernels(Device device) {
  return on<cpu_relative_attention, cuda_relative_attention>(device);
}

}  // namespace

Tensor cache_seen(const Tensor& present, const Tensor& keep, const Tensor& resets,
                  const HeadLayout& layout, std::int64_t cache_tokens, Device device) {
  check(!present || present.shape() == Shape{layout.batch, cache_tokens}, "cache_seen: present is ",
        present.shape(), ", expected [", layout.batch, ", ", cache_tokens, "]");
  const Tensor seen =
      Tensor::empty({layout.batch, layout.segments + 1, cache_tokens}, DType::kUInt8, device);
  kernels(device).seen({.present = present,
                        .keep = keep,
                        .resets = resets,
                        .layout = layout,
                        .cache_tokens = cache_tokens,
                        .seen = seen});
  return seen;
}

Tensor relative_attention(const Tensor& qkv, const Tensor& cached, const Tensor& seen,
                          const RelativePositions& positions, const HeadLayout& layout,
                          double scale) {
  layout.check_rows("relative_attention", qkv, layout.qkv_width());
  const auto [batch, borders, cache] = seen.dims<3>();
  const std::int64_t keys = std::int64_t{layout.kv_heads} * layout.head_width;
  check(batch == layout.batch && borders == layout.segments + 1,
        "relative_attention: what is seen is ", seen.shape(), ", expected [", layout.batch, ", ",
        layout.segments + 1, ", M]");
  const bool apart = cached.shape()[0] == layout.batch * layout.segments * cache;
  const Attention args{.qkv = qkv.unwatched(),
                       .cached = cached.unwatched(),
                       .seen = seen,
                       .positions = {.keys = positions.keys.unwatched(),
                                     .content_bias = positions.content_bias.unwatched(),
                                     .position_bias = positions.position_bias.unwatched()},
                       .layout = layout,
                       .cache_tokens = cache,
                       .step = apart ? cache : layout.tokens,
                       .scale = scale};
  const Shape cached_shape{layout.batch * args.context_tokens(), 2 * keys};
  check(cached.shape() == cached_shape, "relative_attention: the cache is ", cached.shape(),
        ", expected ", cached_shape);
  const Shape key_shape{cache + layout.tokens, keys};
  check(positions.keys.shape() == key_shape, "relative_attention: keys of distances are ",
        positions.keys.shape(), ", expected ", key_shape);
  const Shape bias_shape{layout.heads, layout.head_width};
  for (const Tensor& bias : {positions.content_bias, positions.position_bias})
    check(bias.shape() == bias_shape, "relative_attention: a bias is ", bias.shape(), ", expected ",
          bias_shape);

  const Tensor y = Tensor::empty({layout.rows(), layout.query_width()}, qkv.dtype(), qkv.device());
  kernels(qkv.device()).attention(args, y);
  return record(y, {qkv, cached, positions.keys, positions.content_bias, positions.position_bias},
                [args](const Tensor& dy, Gradients& gradients) {
                  kernels(dy.device())
                      .attention_grad({.forward = args,
                                       .dy = dy,
                                       .dqkv = gradients.of(0),
                                       .dcached = gradients.of(1),
                                       .dkeys = gradients.of(2),
                                       .dcontent_bias = gradients.of(3),
                                       .dposition_bias = gradients.of(4)});
                });
}

}  // namespace infini
