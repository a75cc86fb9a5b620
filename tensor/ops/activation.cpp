#include "tensor/ops/activation.h"

#include "tensor/ops/scalar_math.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

using Kind = ActivationKernels::Kind;

struct Relu {
  template <class A>
  static A value(A x) {
    return x > 0 ? x : A(0);
  }
  template <class A>
  static A slope(A x) {
    return x > 0 ? A(1) : A(0);
  }
};

// tanh(u) = 2 sigmoid(2u) - 1, so gelu(x) = x sigmoid(2u) with u = sqrt(2/pi) (x + 0.044715 x^3).
struct Gelu {
  static constexpr double kScale = 1.5957691216057308;  // 2 sqrt(2/pi)
  static constexpr double kCube = 0.044715;

  template <class A>
  static A value(A x) {
    return x * sigmoid(A(kScale) * (x + A(kCube) * x * x * x));
  }
  template <class A>
  static A slope(A x) {
    const A s = sigmoid(A(kScale) * (x + A(kCube) * x * x * x));
    return s + x * s * (A(1) - s) * A(kScale) * (A(1) + A(3 * kCube) * x * x);
  }
};

template <class Activation, class T>
void elementwise(const Tensor& x, const Tensor& y) {
  using A = Accumulator<T>;
  const T* in = x.data<T>();
  T* out = y.data<T>();
  parallel_ranges(x.size(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) out[i] = T(Activation::value(A(in[i])));
  });
}

template <class Activation, class T>
void elementwise_grad(const Tensor& x, const Tensor& dy, const GradTarget& dx) {
  using A = Accumulator<T>;
  const T *in = x.data<T>(), *upstream = dy.data<T>();
  T* out = dx.tensor.data<T>();
  parallel_ranges(x.size(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    if (dx.accumulate) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i)
        out[i] = T(A(out[i]) + A(upstream[i]) * Activation::slope(A(in[i])));
    } else {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i)
        out[i] = T(A(upstream[i]) * Activation::slope(A(in[i])));
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
  void forward(Kind kind, const Tensor& x, const Tensor& y) const override {
    dispatch_float(x.dtype(), [&]<class T>() {
      switch (kind) {
        case Kind::kRelu: return elementwise<Relu, T>(x, y);
        case Kind::kGelu: return elementwise<Gelu, T>(x, y);
        case Kind::kSwiglu: return swiglu_forward<T>(x, y);
      }
    });
  }
  void backward(Kind kind, const Tensor& x, const Tensor& dy, const GradTarget& dx) const override {
    dispatch_float(x.dtype(), [&]<class T>() {
      switch (kind) {
        case Kind::kRelu: return elementwise_grad<Relu, T>(x, dy, dx);
        case Kind::kGelu: return elementwise_grad<Gelu, T>(x, dy, dx);
        case Kind::kSwiglu: return swiglu_backward<T>(x, dy, dx);
      }
    });
  }
};

const CpuActivation cpu_activation;

Tensor activate(Kind kind, const Tensor& x, const Tensor& y) {
  const ActivationKernels& device = on<cpu_activation>(x.device());
  device.forward(kind, x, y);
  return record(y, {x}, [=, &device](const Tensor& dy, Gradients& gradients) {
    device.backward(kind, x, dy, gradients.of(0));
  });
}

}  // namespace

Tensor relu(const Tensor& x) { return activate(Kind::kRelu, x, Tensor::empty_like(x)); }
Tensor gelu(const Tensor& x) { return activate(Kind::kGelu, x, Tensor::empty_like(x)); }

Tensor swiglu(const Tensor& x) {
  const auto [rows, width] = x.dims<2>();
  check(width % 2 == 0, "swiglu: expected an even width, got ", x.shape());
  return activate(Kind::kSwiglu, x, Tensor::empty({rows, width / 2}, x.dtype(), x.device()));
}

}  // namespace infini
