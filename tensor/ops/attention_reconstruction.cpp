#include "tensor/ops/attention_reconstruction.h"

#include <algorithm>
#include <cmath>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/gemm.h"
#include "tensor/ops/scalar_math.h"
#include "tensor/ops/tile.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

using Attention = AttentionReconstructionKernels::Attention;

constexpr std::int64_t kQueryTile = 64;  // rows of scores alive at a time in a thread

enum Buffer { kScores, kScoresGrad, kRows, kKeyGrad, kValueGrad };

// What one head reads for one segment.
template <class T>
struct Head {
  using A = Accumulator<T>;
  const T *query, *key, *value;
  const std::uint8_t* seen;  // [M]
  std::int64_t leading, pair_leading, out_leading;
  std::int64_t first_out;  // of what the head computes

  Head(const Attention& args, std::int64_t segment, int head) {
    const HeadLayout& layout = args.layout;
    const std::int64_t width = layout.head_width, keys = layout.kv_heads * width;
    leading = layout.qkv_width();
    pair_leading = 2 * keys;
    out_leading = layout.query_width();
    first_out = segment * layout.tokens * out_leading + head * width;
    query = args.qkv.data<T>() + segment * layout.tokens * leading + head * width;
    key = args.pairs.rows.data<T>() + segment * args.places * pair_leading +
          head / layout.group() * width;
    value = key + keys;
    seen = args.pairs.seen.data<std::uint8_t>() + segment * args.places;
  }

  // The probabilities of queries [begin, begin + rows): [rows, M].
  A* attend(const Attention& args, std::int64_t begin, std::int64_t rows) const {
    const std::int64_t places = args.places;
    A* scores = scratch<A, kScores>(kQueryTile * places);
    gemm(false, true, rows, places, args.layout.head_width, query + begin * leading, leading, key,
         pair_leading, scores, places, false);
    for (std::int64_t r = 0; r < rows; ++r) {
      A* row = scores + r * places;
      bool any = false;
      A highest = 0, sum = 0;
      for (std::int64_t j = 0; j < places; ++j)
        if (seen[j]) {
          highest = any ? std::max(highest, row[j]) : row[j];
          any = true;
        }
      for (std::int64_t j = 0; j < places; ++j) {
        row[j] = seen[j] ? fast_exp(A(args.scale) * (row[j] - highest)) : A(0);
        sum += row[j];
      }
      for (std::int64_t j = 0; any && j < places; ++j) row[j] /= sum;
    }
    return scores;
  }
};

class CpuAttentionReconstruction final : public AttentionReconstructionKernels {
 public:
  void attention(const Attention& args, const Tensor& minus, double factor,
                 const Tensor& y) const override {
    each(args, args.layout.heads, [&]<class T>(std::int64_t segment, int head) {
      using A = Accumulator<T>;
      const Head<T> in(args, segment, head);
      const std::int64_t width = args.layout.head_width;
      for (std::int64_t begin = 0; begin < args.layout.tokens; begin += kQueryTile) {
        const std::int64_t rows = std::min(kQueryTile, args.layout.tokens - begin);
        const A* probabilities = in.attend(args, begin, rows);
        A* tile = scratch<A, kRows>(kQueryTile * width);
        gemm(false, false, rows, width, args.places, probabilities, args.places, in.value,
             in.pair_leading, tile, width, false);
        const std::int64_t first = in.first_out + begin * in.out_leading;
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t c = 0; c < width; ++c) {
            const std::int64_t at = first + r * in.out_leading + c;
            y.data<A>()[at] =
                A(factor) * (tile[r * width + c] - (minus ? minus.data<A>()[at] : A(0)));
          }
      }
    });
  }

  // With P the probabilities and dP = dA V^T:  dV = P^T dA,  dK = scale (P (dP - sum_j P dP))^T q.
  // Heads of a group and tiles of queries add one after the other.
  void attention_grad(const Attention& args, const Tensor& dy, double factor,
                      const Tensor& drows) const override {
    each(args, args.layout.kv_heads, [&]<class T>(std::int64_t segment, int kv_head) {
      using A = Accumulator<T>;
      const HeadLayout& layout = args.layout;
      const std::int64_t width = layout.head_width, places = args.places;
      A *dkey = scratch<A, kKeyGrad>(places * width),
        *dvalue = scratch<A, kValueGrad>(places * width);
      std::fill_n(dkey, places * width, A(0));
      std::fill_n(dvalue, places * width, A(0));
      for (int head = kv_head * layout.group(); head < (kv_head + 1) * layout.group(); ++head) {
        const Head<T> in(args, segment, head);
        for (std::int64_t begin = 0; begin < layout.tokens; begin += kQueryTile) {
          const std::int64_t rows = std::min(kQueryTile, layout.tokens - begin);
          const A* probabilities = in.attend(args, begin, rows);
          const A* given = dy.data<A>() + in.first_out + begin * in.out_leading;
          A* dtile = scratch<A, kRows>(kQueryTile * width);
          for (std::int64_t r = 0; r < rows; ++r)
            for (std::int64_t c = 0; c < width; ++c)
              dtile[r * width + c] = A(factor) * given[r * in.out_leading + c];
          A* dscores = scratch<A, kScoresGrad>(kQueryTile * places);
          gemm(false, true, rows, places, width, dtile, width, in.value, in.pair_leading, dscores,
               places, false);
          gemm(true, false, places, width, rows, probabilities, places, dtile, width, dvalue, width,
               true);
          for (std::int64_t r = 0; r < rows; ++r) {
            const A mean = dot(probabilities + r * places, dscores + r * places, places);
            for (std::int64_t j = r * places; j < (r + 1) * places; ++j)
              dscores[j] = A(args.scale) * probabilities[j] * (dscores[j] - mean);
          }
          gemm(true, false, places, width, rows, dscores, places, in.query + begin * in.leading,
               in.leading, dkey, width, true);
        }
      }
      const std::int64_t keys = layout.kv_heads * width;
      T* to = drows.data<T>() + segment * places * 2 * keys + kv_head * width;
      store_tile(dkey, places, width, to, 2 * keys, false);
      store_tile(dvalue, places, width, to + keys, 2 * keys, false);
    });
  }

 private:
  template <class Task>
  static void each(const Attention& args, int heads, const Task& task) {
    dispatch_float(args.qkv.dtype(), [&]<class T>() {
      parallel_for(args.layout.batch * args.layout.segments * heads, [&](std::int64_t i) {
        task.template operator()<T>(i / heads, static_cast<int>(i % heads));
      });
    });
  }
};

const CpuAttentionReconstruction cpu_attention_reconstruction;

const AttentionReconstructionKernels& kernels(Device device) {
  return on<cpu_attention_reconstruction, cuda_attention_reconstruction>(device);
}

Attention attention_over(const Tensor& qkv, const SegmentPairs& pairs, const HeadLayout& layout,
                         double scale) {
  const auto [batch, segments, places] = pairs.seen.dims<3>();
  check(batch == layout.batch && segments == layout.segments,
        "attention_reconstruction: what is seen is ", pairs.seen.shape(), ", expected [",
        layout.batch, ", ", layout.segments, ", M]");
  const Shape rows{batch * segments * places,
                   2 * std::int64_t{layout.kv_heads} * layout.head_width};
  check(pairs.rows.shape() == rows && pairs.rows.dtype() == qkv.dtype(),
        "attention_reconstruction: pairs are ", pairs.rows.dtype(), pairs.rows.shape(),
        ", expected ", qkv.dtype(), rows);
  return {.qkv = qkv.unwatched(),
          .pairs = {.rows = pairs.rows.unwatched(), .seen = pairs.seen},
          .layout = layout,
          .scale = scale,
          .places = places};
}

}  // namespace

Tensor attention_reconstruction(const Tensor& qkv, const SegmentPairs& tokens,
                                const SegmentPairs& compressed, const HeadLayout& layout,
                                double scale, double weight) {
  layout.check_rows("attention_reconstruction", qkv, layout.qkv_width());
  check(weight >= 0, "attention_reconstruction: the weight is ", weight, ", expected 0 or more");
  const AttentionReconstructionKernels& device = kernels(qkv.device());
  const DType wide = accumulator_of(qkv.dtype());
  const Tensor whole = Tensor::empty({layout.rows(), layout.query_width()}, wide, qkv.device());
  device.attention(attention_over(qkv, tokens, layout, scale), {}, 1, whole);
  // sqrt(weight) times what is lost.
  const Attention over = attention_over(qkv, compressed, layout, scale);
  const Tensor lost = Tensor::empty_like(whole);
  device.attention(over, whole, std::sqrt(weight), lost);
  const Tensor loss = Tensor::empty({}, wide, qkv.device());
  convert_into(loss, square_sum(lost));

  Tensor drows;
  if (compressed.rows.tape()) {
    drows = Tensor::empty_like(over.pairs.rows);
    device.attention_grad(over, lost, 2 * std::sqrt(weight), drows);
  }
  return record(loss, {compressed.rows}, [drows](const Tensor& dloss, Gradients& gradients) {
    check(dloss.device() != Device::kCpu || dloss.item() == 1,
          "attention_reconstruction: the loss must be a root of the backward pass; its gradient "
          "is ",
          dloss.item(), ", expected 1");
    if (const GradTarget target = gradients.of(0)) add_into(target, drows);
  });
}

}  // namespace infini
