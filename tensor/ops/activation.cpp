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

// silu'(x) = s (1 + x (1 - s)) with s = sigmoid(x).
struct Silu {
  template <class A>
  static ValueAndSlope<A> both(A x) {
    const A s = sigmoid(x);
    return {x * s, s * (A(1) + x * (A(1) - s))};
  }
};

// use.operator()<Activation>()
template <class Use>
void with(Kind kind, Use use) {
  switch (kind) {
    case Kind::kRelu:
      return use.template operator()<Relu>();
    case Kind::kGelu:
      return use.template operator()<Gelu>();
    case Kind::kSilu:
      return use.template operator()<Silu>();
  }
}

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

template <class Activation, class T>
void gated_forward(const Tensor& x, const Tensor& y) {
  using A = Accumulator<T>;
  const auto [rows, width] = y.rows_and_width();
  parallel_ranges(rows, 16, [&, width = width](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T *gate = x.data<T>() + 2 * r * width, *up = gate + width;
      T* out = y.data<T>() + r * width;
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c)
        out[c] = T(Activation::both(A(gate[c])).value * A(up[c]));
    }
  });
}

template <class Activation, class T>
void gated_backward(const Tensor& x, const Tensor& dy, const GradTarget& dx) {
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
        const auto [value, slope] = Activation::both(A(gate[c]));
        const A d = A(upstream[c]);
        dgate[c] = T(A(dgate[c]) + d * A(up[c]) * slope);
        dup[c] = T(A(dup[c]) + d * value);
      }
    }
  });
}

class CpuActivation final : public ActivationKernels {
 public:
  void elementwise(Kind kind, const Tensor& x, const Tensor& y,
                   const Tensor& slope) const override {
    with(kind, [&]<class Activation>() {
      dispatch_float(x.dtype(), [&]<class T>() { apply<Activation, T>(x, y, slope); });
    });
  }
  void elementwise_grad(const Tensor& slope, const Tensor& dy,
                        const GradTarget& dx) const override {
    dispatch_float(slope.dtype(), [&]<class T>() { multiply_slopes<T>(slope, dy, dx); });
  }
  void gated(Kind kind, const Tensor& x, const Tensor& y) const override {
    with(kind, [&]<class Activation>() {
      dispatch_float(x.dtype(), [&]<class T>() { gated_forward<Activation, T>(x, y); });
    });
  }
  void gated_grad(Kind kind, const Tensor& x, const Tensor& dy,
                  const GradTarget& dx) const override {
    with(kind, [&]<class Activation>() {
      dispatch_float(x.dtype(), [&]<class T>() { gated_backward<Activation, T>(x, dy, dx); });
    });
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

Tensor gate(Kind kind, const char* name, const Tensor& x) {
  const auto [rows, width] = x.dims<2>();
  check(width % 2 == 0, name, ": expected an even width, got ", x.shape());
  const Tensor y = Tensor::empty({rows, width / 2}, x.dtype(), x.device());
  const ActivationKernels& device = on<kernels, cuda_activation>(x.device());
  device.gated(kind, x, y);
  return record(y, {x}, [kind, x, &device](const Tensor& dy, Gradients& gradients) {
    device.gated_grad(kind, x, dy, gradients.of(0));
  });
}

}  // namespace

const ActivationKernels& cpu_activation() { return kernels; }

Tensor relu(const Tensor& x) { return activate(Kind::kRelu, x); }
Tensor gelu(const Tensor& x) { return activate(Kind::kGelu, x); }

Tensor swiglu(const Tensor& x) { return gate(Kind::kSilu, "swiglu", x); }
Tensor geglu(const Tensor& x) { return gate(Kind::kGelu, "geglu", x); }

}  // namespace infini
