#include "tensor/ops/bias.h"

#include "tensor/ops/elementwise.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

// Rows summed into one partial gradient; partials are added in order.
constexpr std::int64_t kRowGrain = 64;

class CpuBias final : public BiasKernels {
 public:
  void add_bias(const Tensor& x, const Tensor& bias, const Tensor& y) const override {
    dispatch_float(x.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const auto [rows, width] = x.rows_and_width();
      const A* b = bias.data<A>();
      parallel_ranges(rows, kRowGrain, [&, width = width](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const T* in = x.data<T>() + r * width;
          T* out = y.data<T>() + r * width;
          for (std::int64_t c = 0; c < width; ++c) out[c] = T(A(in[c]) + b[c]);
        }
      });
    });
  }

  void add_bias_grad(const Tensor& dy, const GradTarget& dbias) const override {
    dispatch_float(dy.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const auto [rows, width] = dy.rows_and_width();
      const std::int64_t pieces = (rows + kRowGrain - 1) / kRowGrain;
      const Tensor partial = Tensor::zeros({pieces, width}, dtype_of<A>());
      parallel_ranges(rows, kRowGrain, [&, width = width](std::int64_t begin, std::int64_t end) {
        A* sum = partial.data<A>() + begin / kRowGrain * width;
        for (std::int64_t r = begin; r < end; ++r)
          for (std::int64_t c = 0; c < width; ++c) sum[c] += A(dy.data<T>()[r * width + c]);
      });
      const Tensor total = Tensor::zeros({width}, dtype_of<A>());
      for (std::int64_t piece = 0; piece < pieces; ++piece)
        for (std::int64_t c = 0; c < width; ++c)
          total.data<A>()[c] += partial.data<A>()[piece * width + c];
      add_into(dbias, total);
    });
  }
};

const CpuBias cpu_bias;

}  // namespace

Tensor add_bias(const Tensor& x, const Tensor& bias) {
  check(bias.shape() == Shape{x.shape()[-1]} && bias.dtype() == accumulator_of(x.dtype()),
        "add_bias: bias is ", bias.dtype(), bias.shape(), ", expected ", accumulator_of(x.dtype()),
        "[", x.shape()[-1], "]");
  const Tensor y = Tensor::empty_like(x);
  const BiasKernels& device = on<cpu_bias, cuda_bias>(x.device());
  device.add_bias(x, bias, y);

  return record(y, {x, bias}, [&device](const Tensor& dy, Gradients& gradients) {
    if (const GradTarget dbias = gradients.of(1)) device.add_bias_grad(dy, dbias);
    gradients.hand_on(0, dy);
  });
}

}  // namespace infini
