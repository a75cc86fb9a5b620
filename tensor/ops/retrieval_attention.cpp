#include "tensor/ops/retrieval_attention.h"

#include <algorithm>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/gemm.h"
#include "tensor/ops/scalar_math.h"
#include "tensor/ops/tile.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

using Retrieval = RetrievalAttentionKernels::Retrieval;
using RetrievalGrad = RetrievalAttentionKernels::RetrievalGrad;

constexpr std::int64_t kQueryTile = 64, kPlaceTile = 512;  // scores alive at a time in a thread

enum Buffer { kScores, kNearest, kProbabilities, kValueDots, kRetrieved, kUnitGrad };

template <class A>
struct Neighbour {
  A score;
  std::int32_t place;
};

// The n best of what is offered in the order of places.
template <class A>
class Nearest {
 public:
  Nearest(Neighbour<A>* list, int most) : list_(list), most_(most) {}

  void offer(A score, std::int64_t place) {
    if (count_ == most_ && !(score > list_[count_ - 1].score)) return;
    int at = count_ < most_ ? count_++ : count_ - 1;
    for (; at > 0 && score > list_[at - 1].score; --at) list_[at] = list_[at - 1];
    list_[at] = {.score = score, .place = static_cast<std::int32_t>(place)};
  }
  void store(std::int32_t* places) const {
    for (int i = 0; i < most_; ++i) places[i] = i < count_ ? list_[i].place : -1;
  }

 private:
  Neighbour<A>* list_;
  int most_, count_ = 0;
};

// What one head reads of one segment.
template <class T>
struct Head {
  const T *query, *key, *value, *local;
  const std::uint8_t* seen;  // [N]
  std::int64_t leading, pair_leading, out_leading;
  std::int64_t first_row, first_out, first_chosen;

  Head(const Retrieval& args, std::int64_t segment, int head) {
    const HeadLayout& layout = args.layout;
    const std::int64_t b = segment / layout.segments, s = segment % layout.segments;
    const std::int64_t width = layout.head_width, keys = layout.kv_heads * width;
    leading = layout.qkv_width();
    pair_leading = 2 * keys;
    out_leading = layout.query_width();
    first_row = segment * layout.tokens;
    first_out = first_row * out_leading + head * width;
    first_chosen = (first_row * layout.heads + head) * args.options.neighbours;
    query = args.qkv.data<T>() + first_row * leading + head * width;
    key =
        args.pairs.data<T>() + args.first_pair(b, s) * pair_leading + head / layout.group() * width;
    value = key + keys;
    local = args.local.data<T>() + first_out;
    seen = args.seen.data<std::uint8_t>() + (b * (layout.segments + 1) + s) * args.retrieval_tokens;
  }
};

// What one query reads: the softmax over its places.
template <class T>
struct Read {
  using A = Accumulator<T>;
  const std::int32_t* places;
  int count = 0;
  A inverse_length = 0;  // 1 / |q|
  A* probabilities;      // [count]
  A* retrieved;          // r [K]

  Read(const Retrieval& args, const Head<T>& in, int head, std::int64_t t) {
    const int most = args.options.neighbours;
    const std::int64_t width = args.layout.head_width;
    places = args.chosen.data<std::int32_t>() + in.first_chosen + t * args.layout.heads * most;
    while (count < most && places[count] >= 0) ++count;
    probabilities = scratch<A, kProbabilities>(most);
    retrieved = scratch<A, kRetrieved>(width);
    std::fill_n(retrieved, width, A(0));
    if (count == 0) return;

    const T* q = in.query + t * in.leading;
    inverse_length = A(1) / std::sqrt(product(q, q, width) + A(kLengthEps));
    const A scale = args.scale.data<A>()[head] * inverse_length;
    A highest = 0;
    for (int i = 0; i < count; ++i) {
      probabilities[i] = scale * product(q, in.key + places[i] * in.pair_leading, width);
      highest = i == 0 ? probabilities[i] : std::max(highest, probabilities[i]);
    }
    A total = 0;
    for (int i = 0; i < count; ++i)
      total += probabilities[i] = fast_exp(probabilities[i] - highest);
    for (int i = 0; i < count; ++i) {
      probabilities[i] /= total;
      const T* v = in.value + places[i] * in.pair_leading;
      for (std::int64_t c = 0; c < width; ++c) retrieved[c] += probabilities[i] * A(v[c]);
    }
  }

  template <class X, class Y>
  static A product(const X* x, const Y* y, std::int64_t width) {
    A sum = 0;
    for (std::int64_t c = 0; c < width; ++c) sum += A(x[c]) * A(y[c]);
    return sum;
  }

  A gate(const Retrieval& args, int head) const {
    if (count == 0 && args.options.bypass_empty) return 0;
    return sigmoid(args.gate.data<A>()[head]);
  }
};

class CpuRetrievalAttention final : public RetrievalAttentionKernels {
 public:
  void pairs(const Tensor& qkv, const HeadLayout& layout, const Tensor& pairs) const override {
    dispatch_float(qkv.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const std::int64_t width = layout.head_width, keys = layout.kv_heads * width;
      parallel_ranges(layout.rows(), 64, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
          const T* from = qkv.data<T>() + row * layout.qkv_width() + layout.query_width();
          T* to = pairs.data<T>() + row * 2 * keys;
          for (int head = 0; head < layout.kv_heads; ++head) {
            const T* key = from + head * width;
            A square = 0;
            for (std::int64_t c = 0; c < width; ++c) square += A(key[c]) * A(key[c]);
            const A inverse = A(1) / std::sqrt(square + A(kLengthEps));
            for (std::int64_t c = 0; c < width; ++c) to[head * width + c] = T(A(key[c]) * inverse);
          }
          std::copy_n(from + keys, keys, to + keys);
        }
      });
    });
  }

  void choose(const Retrieval& args) const override {
    each_head(args,
              [&]<class T>(std::int64_t segment, int head) { choose<T>(args, segment, head); });
  }

  void mix(const Retrieval& args, const Tensor& y) const override {
    each_head(args, [&]<class T>(std::int64_t segment, int head) {
      using A = Accumulator<T>;
      const Head<T> in(args, segment, head);
      T* out = y.data<T>() + in.first_out;
      for (std::int64_t t = 0; t < args.layout.tokens; ++t) {
        const Read<T> read(args, in, head, t);
        const A gate = read.gate(args, head);
        for (int c = 0; c < args.layout.head_width; ++c)
          out[t * in.out_leading + c] =
              T(gate * read.retrieved[c] + (A(1) - gate) * A(in.local[t * in.out_leading + c]));
      }
    });
  }

  // With e_j = dy . v_j and d_j = g p_j (e_j - sum_j p e), the gradients of the scores:
  // ds = sum_j d_j q^ . k_j,  dq^ = s sum_j d_j k_j,  dq = (dq^ - q^ (q^ . dq^)) / |q|,
  // dlocal = (1 - g) dy,  dgate = dy . (r - local) g (1 - g).
  void mix_grad(const RetrievalGrad& args) const override {
    const HeadLayout& layout = args.forward.layout;
    const Tensor partial =
        Tensor::zeros({2, layout.batch * layout.segments, layout.heads}, args.forward.gate.dtype());
    each_head(args.forward, [&]<class T>(std::int64_t segment, int head) {
      mix_grad<T>(args, partial, segment, head);
    });
    const auto add = [&](const GradTarget& target, std::int64_t which) {
      if (!target) return;
      for (std::int64_t segment = 0; segment < partial.shape()[1]; ++segment)
        add_into({.tensor = target.tensor, .accumulate = target.accumulate || segment > 0},
                 partial.slice(which, 1)
                     .reshape({partial.shape()[1], layout.heads})
                     .slice(segment, 1)
                     .reshape({layout.heads}));
    };
    add(args.dscale, 0);
    add(args.dgate, 1);
  }

 private:
  template <class Task>
  static void each_head(const Retrieval& args, const Task& task) {
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      const HeadLayout& layout = args.layout;
      parallel_for(layout.batch * layout.segments * layout.heads, [&](std::int64_t i) {
        task.template operator()<T>(i / layout.heads, static_cast<int>(i % layout.heads));
      });
    });
  }

  template <class T>
  static void choose(const Retrieval& args, std::int64_t segment, int head) {
    using A = Accumulator<T>;
    const Head<T> in(args, segment, head);
    const std::int64_t tokens = args.layout.tokens, places = args.retrieval_tokens,
                       width = args.layout.head_width;
    const int most = args.options.neighbours;
    A* scores = scratch<A, kScores>(kQueryTile * kPlaceTile);
    auto* lists = scratch<Neighbour<A>, kNearest>(kQueryTile * most);
    for (std::int64_t begin = 0; begin < tokens; begin += kQueryTile) {
      const std::int64_t rows = std::min(kQueryTile, tokens - begin);
      std::vector<Nearest<A>> nearest;
      for (std::int64_t r = 0; r < rows; ++r) nearest.emplace_back(lists + r * most, most);
      for (std::int64_t first = 0; first < places; first += kPlaceTile) {
        const std::int64_t count = std::min(kPlaceTile, places - first);
        if (!std::any_of(in.seen + first, in.seen + first + count, std::identity())) continue;
        gemm(false, true, rows, count, width, in.query + begin * in.leading, in.leading,
             in.key + first * in.pair_leading, in.pair_leading, scores, count, false);
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t j = 0; j < count; ++j)
            if (in.seen[first + j]) nearest[r].offer(scores[r * count + j], first + j);
      }
      std::int32_t* chosen =
          args.chosen.data<std::int32_t>() + in.first_chosen + begin * args.layout.heads * most;
      for (std::int64_t r = 0; r < rows; ++r)
        nearest[r].store(chosen + r * args.layout.heads * most);
    }
  }

  template <class T>
  static void mix_grad(const RetrievalGrad& args, const Tensor& partial, std::int64_t segment,
                       int head) {
    using A = Accumulator<T>;
    const Retrieval& given = args.forward;
    const HeadLayout& layout = given.layout;
    const std::int64_t width = layout.head_width;
    const Head<T> in(given, segment, head);
    A* dots = scratch<A, kValueDots>(given.options.neighbours);
    A* dunit = scratch<A, kUnitGrad>(width);
    const A scale = given.scale.data<A>()[head];
    A dscale = 0, dgate = 0;
    for (std::int64_t t = 0; t < layout.tokens; ++t) {
      const Read<T> read(given, in, head, t);
      const A gate = read.gate(given, head);
      const T* dy = args.dy.data<T>() + in.first_out + t * in.out_leading;
      const T *query = in.query + t * in.leading, *local = in.local + t * in.out_leading;
      for (std::int64_t c = 0; c < width; ++c)
        dgate += gate * (A(1) - gate) * A(dy[c]) * (read.retrieved[c] - A(local[c]));
      if (args.dlocal) {
        T* to = args.dlocal.tensor.data<T>() + in.first_out + t * in.out_leading;
        for (std::int64_t c = 0; c < width; ++c)
          to[c] = T((A(1) - gate) * A(dy[c]) + (args.dlocal.accumulate ? A(to[c]) : A(0)));
      }

      A mean = 0;
      for (int i = 0; i < read.count; ++i) {
        dots[i] = read.product(dy, in.value + read.places[i] * in.pair_leading, width);
        mean += read.probabilities[i] * dots[i];
      }
      std::fill_n(dunit, width, A(0));
      A along = 0;  // q^ . dq^ / s
      for (int i = 0; i < read.count; ++i) {
        const T* key = in.key + read.places[i] * in.pair_leading;
        const A dscore = gate * read.probabilities[i] * (dots[i] - mean);
        for (std::int64_t c = 0; c < width; ++c) dunit[c] += dscore * A(key[c]);
        along += dscore * read.inverse_length * read.product(query, key, width);
      }
      dscale += along;
      if (!args.dqkv) continue;
      T* dquery = args.dqkv.tensor.data<T>() + (in.first_row + t) * in.leading + head * width;
      for (std::int64_t c = 0; c < width; ++c) {
        const A unit = A(query[c]) * read.inverse_length;
        const A dq = scale * (dunit[c] - unit * along) * read.inverse_length;
        dquery[c] = T(dq + (args.dqkv.accumulate ? A(dquery[c]) : A(0)));
      }
    }
    const std::int64_t at = segment * layout.heads + head;
    partial.data<A>()[at] = dscale;
    partial.data<A>()[partial.size() / 2 + at] = dgate;
  }
};

const CpuRetrievalAttention cpu_retrieval_attention;

const RetrievalAttentionKernels& kernels(Device device) {
  return on<cpu_retrieval_attention, cuda_retrieval_attention>(device);
}

}  // namespace

Tensor memory_pairs(const Tensor& qkv, const HeadLayout& layout) {
  layout.check_rows("memory_pairs", qkv, layout.qkv_width());
  const std::int64_t keys = std::int64_t{layout.kv_heads} * layout.head_width;
  const Tensor pairs = Tensor::empty({layout.rows(), 2 * keys}, qkv.dtype(), qkv.device());
  kernels(qkv.device()).pairs(qkv.unwatched(), layout, pairs);
  return pairs;
}

Tensor retrieval_attention(const Tensor& qkv, const Tensor& pairs, const Tensor& seen,
                           const Tensor& scale, const Tensor& gate, const Tensor& local,
                           const HeadLayout& layout, const RetrievalOptions& options) {
  layout.check_rows("retrieval_attention", qkv, layout.qkv_width());
  layout.check_rows("retrieval_attention", local, layout.query_width());
  check(options.neighbours >= 1, "retrieval_attention: ", options.neighbours,
        " neighbours, expected at least 1");
  const auto [batch, borders, places] = seen.dims<3>();
  check(batch == layout.batch && borders == layout.segments + 1,
        "retrieval_attention: what is seen is ", seen.shape(), ", expected [", layout.batch, ", ",
        layout.segments + 1, ", N]");
  const Shape pair_shape{layout.batch * (places + (layout.segments - 1) * layout.tokens),
                         2 * std::int64_t{layout.kv_heads} * layout.head_width};
  check(pairs.shape() == pair_shape && pairs.dtype() == qkv.dtype(),
        "retrieval_attention: pairs are ", pairs.dtype(), pairs.shape(), ", expected ", qkv.dtype(),
        pair_shape);
  for (const Tensor& numbers : {scale, gate})
    check(numbers.shape() == Shape{layout.heads} && numbers.dtype() == accumulator_of(qkv.dtype()),
          "retrieval_attention: scale and gate are ", accumulator_of(qkv.dtype()), "[",
          layout.heads, "], got ", numbers.dtype(), numbers.shape());

  const RetrievalAttentionKernels& device = kernels(qkv.device());
  const Retrieval args{.qkv = qkv.unwatched(),
                       .pairs = pairs.unwatched(),
                       .seen = seen,
                       .scale = scale.unwatched(),
                       .gate = gate.unwatched(),
                       .local = local.unwatched(),
                       .layout = layout,
                       .options = options,
                       .retrieval_tokens = places,
                       .chosen = Tensor::empty({layout.rows(), layout.heads, options.neighbours},
                                               DType::kInt32, qkv.device())};
  device.choose(args);
  const Tensor y = Tensor::empty_like(args.local);
  device.mix(args, y);
  return record(y, {qkv, scale, gate, local},
                [args, &device](const Tensor& dy, Gradients& gradients) {
                  device.mix_grad({.forward = args,
                                   .dy = dy,
                                   .dqkv = gradients.of(0, args.layout.query_columns()),
                                   .dscale = gradients.of(1),
                                   .dgate = gradients.of(2),
                                   .dlocal = gradients.of(3)});
                });
}

}  // namespace infini
