#include "tensor/ops/activation.h"

#include "tensor/ops/scalar_math.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

using Kind = ActivationKernels::Kind;

template <class A>
struct ValueAndSlope {
  A value, slope;
};

struct Relu {
  template <class A>
  static ValueAndSlope<A> both(A x) {
    return {x > 0 ? x : A(0), x > 0 ? A(1) : A(0)};
  }
};

// tanh(u) = 2 sigmoid(2u) - 1, so gelu(x) = x sigmoid(2u) with u = sqrt(2/pi) (x + 0.044715 x^3).
struct Gelu {
  template <class A>
  static ValueAndSlope<A> both(A x) {
    constexpr double kScale = 1.5957691216057308;  // 2 sqrt(2/pi)
    constexpr double kCube = 0.044715;
    const A s = sigmoid(A(kScale) * (x + A(kCube) * x * x * x));
    return {x * s, s + x * s * (A(1) - s) * A(kScale) * (A(1) + A(3 * kCube) * x * x)};
  }
};

template <class Activation, class T>
void apply(const Tensor& x, const Tensor& y, const Tensor& slope) {
  using A = Accumulator<T>;
  const T* in = x.data<T>();
  T* out = y.data<T>();
  T* slopes = slope ? slope.data<T>() : nullptr;
  parallel_ranges(x.size(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    if (slopes) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        const auto [value, derivative] = Activation::both(A(in[i]));
        out[i] = T(value);
        slopes[i] = T(derivative);
      }
    } else {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) out[i] = T(Activation::both(A(in[i])).value);
    }
  });
}

template <class T>
void multiply_slopes(const Tensor& slope, const Tensor& dy, const GradTarget& dx) {
  using A = Accumulator<T>;
  const T *slopes = slope.data<T>(), *upstream = dy.data<T>();
  T* out = dx.tensor.data<T>();
  parallel_ranges(slope.size(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    if (dx.accumulate) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i)
        out[i] = T(A(out[i]) + A(upstream[i]) * A(slopes[i]));
    } else {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) out[i] = T(A(upstream[i]) * A(slopes[i]));
    }
  });
}

template <class T>
void swiglu_forward(const Tensor& x, const Tensor& y) {
  using A = Accumulator<T>;
  const auto [rows, width] = y.rows_and_width();
  parallel_ranges(rows, 16, [&, width = width](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T *gate = x.data<T>() + 2 * r * width, *up = gate + width;
      T* out = y.data<T>() + r * width;
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c)
        out[c] = T(A(gate[c]) * sigmoid(A(gate[c])) * A(up[c]));
    }
  });
}

// silu'(a) = s (1 + a (1 - s)) with s = sigmoid(a).
template <class T>
void swiglu_backward(const Tensor& x, const Tensor& dy, const GradTarget& dx) {
  using A = Accumulator<T>;
  const auto [rows, width] = dy.rows_and_width();
  const A keep = dx.accumulate ? A(1) : A(0);
  parallel_ranges(rows, 16, [&, width = width](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T *gate = x.data<T>() + 2 * r * width, *up = gate + width;
      const T* upstream = dy.data<T>() + r * width;
      T *dgate = dx.tensor.data<T>() + 2 * r * width, *dup = dgate + width;
      if (keep == 0) std::fill(dgate, dgate + 2 * width, T(0.0f));
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c) {
        const A a = A(gate[c]), s = sigmoid(a), d = A(upstream[c]);
        dgate[c] = T(A(dgate[c]) + d * A(up[c]) * s * (A(1) + a * (A(1) - s)));
        dup[c] = T(A(dup[c]) + d * a * s);
      }
    }
  });
}

class CpuActivation final : public ActivationKernels {
 public:
  void elementwise(Kind kind, const Tensor& x, const Tensor& y,
                   const Tensor& slope) const override {
    dispatch_float(x.dtype(), [&]<class T>() {
      kind == Kind::kRelu ? apply<Relu, T>(x, y, slope) : apply<Gelu, T>(x, y, slope);
    });
  }
  void elementwise_grad(const Tensor& slope, const Tensor& dy,
                        const GradTarget& dx) const override {
    dispatch_float(slope.dtype(), [&]<class T>() { multiply_slopes<T>(slope, dy, dx); });
  }
  void swiglu(const Tensor& x, const Tensor& y) const override {
    dispatch_float(x.dtype(), [&]<class T>() { swiglu_forward<T>(x, y); });
  }
  void swiglu_grad(const Tensor& x, const Tensor& dy, const GradTarget& dx) const override {
    dispatch_float(x.dtype(), [&]<class T>() { swiglu_backward<T>(x, dy, dx); });
  }
};

const CpuActivation kernels;

Tensor activate(Kind kind, const Tensor& x) {
  const Tensor y = Tensor::empty_like(x);
  const Tensor slope = x.tape() ? Tensor::empty_like(x) : Tensor{};
  const ActivationKernels& device = on<kernels, cuda_activation>(x.device());
  device.elementwise(kind, x, y, slope);
  return record(y, {x}, [slope, &device](const Tensor& dy, Gradients& gradients) {
    device.elementwise_grad(slope, dy, gradients.of(0));
  });
}

}  // namespace

const ActivationKernels& cpu_activation() { return kernels; }

Tensor relu(const Tensor& x) { return activate(Kind::kRelu, x); }
Tensor gelu(const Tensor& x) { return activate(Kind::kGelu, x); }

Tensor swiglu(const Tensor& x) {
  const auto [rows, width] = x.dims<2>();
  check(width % 2 == 0, "swiglu: expected an even width, got ", x.shape());
  const Tensor y = Tensor::empty({rows, width / 2}, x.dtype(), x.device());
  const ActivationKernels& device = on<kernels, cuda_activation>(x.device());
  device.swiglu(x, y);
  return record(y, {x}, [x, &device](const Tensor& dy, Gradients& gradients) {
    device.swiglu_grad(x, dy, gradients.of(0));
  });
}

}  // namespace infini
