#include "tensor/ops/norm.h"

#include <cmath>

#include "tensor/ops/elementwise.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

// Rows summed into one partial weight gradient; partials are added in order.
constexpr std::int64_t kRowGrain = 64;

class CpuNorm final : public NormKernels {
 public:
  void rms_norm(const RmsNorm& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() { forward<T>(args); });
  }
  void rms_norm_grad(const RmsNormGrad& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() { backward<T>(args); });
  }

 private:
  template <class T>
  static void forward(const RmsNorm& args) {
    using A = Accumulator<T>;
    const auto [rows, width] = args.x.rows_and_width();
    const A* weight = args.weight.data<A>();
    parallel_ranges(rows, kRowGrain, [&, width = width](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T* x = args.x.data<T>() + r * width;
        A squares = 0;
#pragma omp simd reduction(+ : squares)
        for (std::int64_t c = 0; c < width; ++c) squares += A(x[c]) * A(x[c]);
        const A inv = A(1) / std::sqrt(squares / A(width) + A(args.eps));
        T* y = args.y.data<T>() + r * width;
        for (std::int64_t c = 0; c < width; ++c) y[c] = T(A(x[c]) * inv * weight[c]);
        args.inv_rms.data<A>()[r] = inv;
      }
    });
  }

  // With n = x / rms and g = dy * weight:  dx = (g - n * mean(g * n)) / rms,  dweight = sum_r dy *
  // n.
  template <class T>
  static void backward(const RmsNormGrad& args) {
    using A = Accumulator<T>;
    const auto [rows, width] = args.x.rows_and_width();
    const std::int64_t pieces = (rows + kRowGrain - 1) / kRowGrain;
    const Tensor partial = Tensor::zeros({pieces, width}, dtype_of<A>());
    const A* weight = args.weight.data<A>();
    parallel_ranges(rows, kRowGrain, [&, width = width](std::int64_t begin, std::int64_t end) {
      A* dweight = partial.data<A>() + begin / kRowGrain * width;
      std::vector<A> row(width);
      for (std::int64_t r = begin; r < end; ++r) {
        const T* x = args.x.data<T>() + r * width;
        const T* dy = args.dy.data<T>() + r * width;
        const A inv = args.inv_rms.data<A>()[r];
        A dot = 0;
#pragma omp simd reduction(+ : dot)
        for (std::int64_t c = 0; c < width; ++c) dot += A(dy[c]) * weight[c] * A(x[c]);
        const A shrink = dot * inv * inv / A(width);
        for (std::int64_t c = 0; c < width; ++c) {
          row[c] = inv * (A(dy[c]) * weight[c] - A(x[c]) * shrink);
          dweight[c] += A(dy[c]) * A(x[c]) * inv;
        }
        store<T>(args.dx, r, row);
      }
    });
    if (!args.dweight) return;
    const Tensor total = Tensor::zeros({width}, dtype_of<A>());
    for (std::int64_t piece = 0; piece < pieces; ++piece)
      for (std::int64_t c = 0; c < width; ++c)
        total.data<A>()[c] += partial.data<A>()[piece * width + c];
    add_into(args.dweight, total);
  }

  template <class T, class A>
  static void store(const Gradients::Renewal& to, std::int64_t r, const std::vector<A>& row) {
    if (!to.sum) return;
    const auto width = static_cast<std::int64_t>(row.size());
    T* out = to.sum.data<T>() + r * width;
    if (const T* stood = to.stood ? to.stood.data<T>() + r * width : nullptr)
      for (std::int64_t c = 0; c < width; ++c) out[c] = T(A(stood[c]) + row[c]);
    else
      for (std::int64_t c = 0; c < width; ++c) out[c] = T(row[c]);
  }
};

const CpuNorm cpu_norm;

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  check(weight.shape() == Shape{x.shape()[-1]} && weight.dtype() == accumulator_of(x.dtype()),
        "rms_norm: weight is ", weight.dtype(), weight.shape(), ", expected ",
        accumulator_of(x.dtype()), "[", x.shape()[-1], "]");
  const Tensor y = Tensor::empty_like(x);
  const Tensor inv_rms = Tensor::empty({x.rows_and_width()[0]}, weight.dtype(), x.device());
  const NormKernels& device = on<cpu_norm, cuda_norm>(x.device());
  device.rms_norm({.x = x, .weight = weight, .eps = eps, .y = y, .inv_rms = inv_rms});

  return record(y, {x, weight}, [=, &device](const Tensor& dy, Gradients& gradients) {
    device.rms_norm_grad({.x = x,
                          .weight = weight,
                          .inv_rms = inv_rms,
                          .dy = dy,
                          .dx = gradients.renew(0),
                          .dweight = gradients.of(1)});
  });
}

}  // namespace infini
