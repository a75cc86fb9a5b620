#include "tensor/ops/head_norm.h"

#include <cmath>

#include "tensor/ops/elementwise.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

// Rows summed into one partial weight gradient; partials are added in order.
constexpr std::int64_t kRowGrain = 64;

class CpuHeadNorm final : public HeadNormKernels {
 public:
  void head_norm(const HeadNorm& args) const override {
    dispatch_float(args.qkv.dtype(), [&]<class T>() { forward<T>(args); });
  }
  void head_norm_grad(const HeadNormGrad& args) const override {
    dispatch_float(args.qkv.dtype(), [&]<class T>() { backward<T>(args); });
  }

 private:
  template <class T>
  static void forward(const HeadNorm& args) {
    using A = Accumulator<T>;
    const HeadLayout& layout = args.layout;
    const std::int64_t width = layout.head_width, normed = layout.heads + layout.kv_heads;
    parallel_ranges(layout.rows(), kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T* x = args.qkv.data<T>() + r * layout.qkv_width();
        T* y = args.y.data<T>() + r * layout.qkv_width();
        for (std::int64_t head = 0; head < normed; ++head, x += width, y += width) {
          const A* weight =
              (head < layout.heads ? args.query_weight : args.key_weight).template data<A>();
          A squares = 0;
          for (std::int64_t c = 0; c < width; ++c) squares += A(x[c]) * A(x[c]);
          const A inv = A(1) / std::sqrt(squares / A(width) + A(args.eps));
          for (std::int64_t c = 0; c < width; ++c) y[c] = T(A(x[c]) * inv * weight[c]);
          args.inv_rms.data<A>()[r * normed + head] = inv;
        }
        std::copy_n(x, layout.kv_heads * width, y);
      }
    });
  }

  // With n = x / rms and g = dy * weight:  dx = (g - n * mean(g * n)) / rms,
  // dweight = the sum of dy * n over rows and heads.
  template <class T>
  static void backward(const HeadNormGrad& args) {
    using A = Accumulator<T>;
    const HeadLayout& layout = args.layout;
    const std::int64_t width = layout.head_width, normed = layout.heads + layout.kv_heads;
    const std::int64_t pieces = (layout.rows() + kRowGrain - 1) / kRowGrain;
    const Tensor partial = Tensor::zeros({pieces, 2, width}, dtype_of<A>());
    parallel_ranges(layout.rows(), kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      A* const dweights = partial.data<A>() + begin / kRowGrain * 2 * width;
      std::vector<A> row(layout.qkv_width());
      for (std::int64_t r = begin; r < end; ++r) {
        const T* x = args.qkv.data<T>() + r * layout.qkv_width();
        const T* dy = args.dy.data<T>() + r * layout.qkv_width();
        for (std::int64_t head = 0; head < normed; ++head) {
          const bool is_query = head < layout.heads;
          const A* weight = (is_query ? args.query_weight : args.key_weight).template data<A>();
          A* const dweight = dweights + (is_query ? 0 : width);
          const A inv = args.inv_rms.data<A>()[r * normed + head];
          const std::int64_t first = head * width;
          A dot = 0;
          for (std::int64_t c = 0; c < width; ++c)
            dot += A(dy[first + c]) * weight[c] * A(x[first + c]);
          const A shrink = dot * inv * inv / A(width);
          for (std::int64_t c = 0; c < width; ++c) {
            row[first + c] = inv * (A(dy[first + c]) * weight[c] - A(x[first + c]) * shrink);
            dweight[c] += A(dy[first + c]) * A(x[first + c]) * inv;
          }
        }
        for (std::int64_t c = normed * width; c < layout.qkv_width(); ++c) row[c] = A(dy[c]);
        store<T>(args.dqkv, r, row);
      }
    });
    const GradTarget* const targets[] = {&args.dquery_weight, &args.dkey_weight};
    for (int which = 0; which < 2; ++which) {
      if (!*targets[which]) continue;
      const Tensor total = Tensor::zeros({width}, dtype_of<A>());
      for (std::int64_t piece = 0; piece < pieces; ++piece)
        for (std::int64_t c = 0; c < width; ++c)
          total.data<A>()[c] += partial.data<A>()[(2 * piece + which) * width + c];
      add_into(*targets[which], total);
    }
  }

  template <class T, class A>
  static void store(const GradTarget& to, std::int64_t r, const std::vector<A>& row) {
    if (!to) return;
    const auto width = static_cast<std::int64_t>(row.size());
    T* out = to.tensor.data<T>() + r * width;
    for (std::int64_t c = 0; c < width; ++c)
      out[c] = T(to.accumulate ? A(out[c]) + row[c] : row[c]);
  }
};

const CpuHeadNorm cpu_head_norm;

}  // namespace

Tensor head_norm(const Tensor& qkv, const Tensor& query_weight, const Tensor& key_weight,
                 const HeadLayout& layout, double eps, const TensorGroup* group) {
  layout.check_rows("head_norm", qkv, layout.qkv_width());
  const DType full = accumulator_of(qkv.dtype());
  for (const Tensor& weight : {query_weight, key_weight})
    check(weight.shape() == Shape{layout.head_width} && weight.dtype() == full,
          "head_norm: a weight is ", weight.dtype(), weight.shape(), ", expected ", full, "[",
          layout.head_width, "]");
  const Tensor y = Tensor::empty_like(qkv);
  const Tensor inv_rms =
      Tensor::empty({layout.rows(), layout.heads + layout.kv_heads}, full, qkv.device());
  const HeadNormKernels& device = on<cpu_head_norm, cuda_head_norm>(qkv.device());
  device.head_norm({.qkv = qkv,
                    .query_weight = query_weight,
                    .key_weight = key_weight,
                    .layout = layout,
                    .eps = eps,
                    .y = y,
                    .inv_rms = inv_rms});

  return record(y, {qkv, query_weight, key_weight},
                [=, &device](const Tensor& dy, Gradients& gradients) {
                  const PartialGradient dquery(gradients.of(1), group);
                  const PartialGradient dkey(gradients.of(2), group);
                  device.head_norm_grad({.qkv = qkv,
                                         .query_weight = query_weight,
                                         .key_weight = key_weight,
                                         .inv_rms = inv_rms,
                                         .layout = layout,
                                         .dy = dy,
                                         .dqkv = gradients.of(0),
                                         .dquery_weight = dquery.part(),
                                         .dkey_weight = dkey.part()});
                  for (const PartialGradient* part : {&dquery, &dkey}) {
                    part->send();
                    part->receive();
                  }
                });
}

}  // namespace infini
