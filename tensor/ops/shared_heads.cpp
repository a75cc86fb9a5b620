#include "tensor/ops/shared_heads.h"

#include <array>
#include <cmath>

#include "tensor/parallel.h"

namespace infini {
namespace {

constexpr std::int64_t kColumns = 64;  // of a thread that sums over rows

template <class A>
A logistic(A x) {
  return A(1) / (A(1) + std::exp(-x));
}
// The derivative of silu.
template <class A>
A silu_slope(A x) {
  const A s = logistic(x);
  return s * (1 + x * (1 - s));
}

template <class T, class A>
void put(const GradTarget& target, std::int64_t at, A value) {
  if (!target) return;
  T& to = target.tensor.data<T>()[at];
  to = T(value + (target.accumulate ? A(to) : A(0)));
}

class CpuSharedHeads final : public SharedHeadsKernels {
 public:
  void heads(const Heads& args) const override {
    dispatch_float(args.z.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const HeadLayout& layout = args.layout;
      const std::int64_t width = layout.query_width();
      const Weights<A> weights(args.weights);
      parallel_for(layout.heads, [&](std::int64_t head) {
        const std::int64_t first = head * layout.head_width, end = first + layout.head_width;
        for (std::int64_t r = 0; r < layout.rows(); ++r) {
          const T *z = args.z.data<T>() + r * width, *w = args.w.data<T>() + r * width;
          T* out = args.qkv.data<T>() + r * 3 * width;
          const A inverse = inverse_length(z, weights, first, end);
          for (std::int64_t c = first; c < end; ++c) {
            const A unit = (A(z[c]) + weights.z_bias[c]) * inverse,
                    value = A(w[c]) + weights.value_bias[c];
            out[c] = T(unit * weights.query_scale[c] + weights.query_shift[c]);
            out[width + c] = T(unit * weights.key_scale[c] + weights.key_shift[c]);
            out[2 * width + c] = T(value * logistic(value));
          }
        }
      });
    });
  }

  // With n = 1 / |u|, u' = u n and du' = dq query_scale + dk key_scale:  dz = n (du' - u' (u' .
  // du')).
  void heads_grad(const HeadsGrad& args) const override {
    dispatch_float(args.dqkv.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const HeadLayout& layout = args.forward.layout;
      const std::int64_t width = layout.query_width();
      const Weights<A> weights(args.forward.weights);
      parallel_for(layout.heads, [&](std::int64_t head) {
        const std::int64_t first = head * layout.head_width, end = first + layout.head_width;
        std::vector<std::array<A, 6>> sums(layout.head_width);
        for (std::int64_t r = 0; r < layout.rows(); ++r) {
          const T *z = args.forward.z.data<T>() + r * width,
                  *w = args.forward.w.data<T>() + r * width,
                  *d = args.dqkv.data<T>() + r * 3 * width;
          const A inverse = inverse_length(z, weights, first, end);
          A along = 0;
          for (std::int64_t c = first; c < end; ++c)
            along += (A(z[c]) + weights.z_bias[c]) * inverse * dunit(d, c, width, weights);
          for (std::int64_t c = first; c < end; ++c) {
            const A unit = (A(z[c]) + weights.z_bias[c]) * inverse,
                    dz = inverse * (dunit(d, c, width, weights) - unit * along),
                    dw = A(d[2 * width + c]) * silu_slope(A(w[c]) + weights.value_bias[c]);
            put<T>(args.dz, r * width + c, dz);
            put<T>(args.dw, r * width + c, dw);
            const A added[] = {dz, A(d[c]) * unit, A(d[c]), A(d[width + c]) * unit, A(d[width + c]),
                               dw};
            for (int i = 0; i < 6; ++i) sums[c - first][i] += added[i];
          }
        }
        const GradTarget* targets[] = {&args.dz_bias,    &args.dquery_scale, &args.dquery_shift,
                                       &args.dkey_scale, &args.dkey_shift,   &args.dvalue_bias};
        for (std::int64_t c = first; c < end; ++c)
          for (int i = 0; i < 6; ++i) put<A>(*targets[i], c, sums[c - first][i]);
      });
    });
  }

  void gate(const Gate& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const std::int64_t width = args.x.shape()[1];
      const T *gate = args.gate.data<T>(), *x = args.x.data<T>();
      const A* bias = args.bias.data<A>();
      T* y = args.y.data<T>();
      parallel_ranges(args.x.size(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const A opened = A(gate[i]) + bias[i % width];
          y[i] = T(opened * logistic(opened) * A(x[i]));
        }
      });
    });
  }

  void gate_grad(const GateGrad& args) const override {
    dispatch_float(args.dy.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const auto [rows, width] = args.dy.dims<2>();
      const T *gate = args.forward.gate.data<T>(), *x = args.forward.x.data<T>(),
              *dy = args.dy.data<T>();
      const A* bias = args.forward.bias.data<A>();
      const std::int64_t height = rows, columns = width;
      parallel_ranges(columns, kColumns, [&](std::int64_t begin, std::int64_t end) {
        std::vector<A> sums(end - begin);
        for (std::int64_t r = 0; r < height; ++r)
          for (std::int64_t c = begin; c < end; ++c) {
            const std::int64_t i = r * columns + c;
            const A opened = A(gate[i]) + bias[c], dgate = A(dy[i]) * A(x[i]) * silu_slope(opened);
            sums[c - begin] += dgate;
            put<T>(args.dgate, i, dgate);
            put<T>(args.dx, i, A(dy[i]) * opened * logistic(opened));
          }
        for (std::int64_t c = begin; c < end; ++c) put<A>(args.dbias, c, sums[c - begin]);
      });
    });
  }

 private:
  template <class A>
  struct Weights {
    const A *z_bias, *query_scale, *query_shift, *key_scale, *key_shift, *value_bias;

    explicit Weights(const SharedWeights& given)
        : z_bias(given.z_bias.data<A>()),
          query_scale(given.query_scale.data<A>()),
          query_shift(given.query_shift.data<A>()),
          key_scale(given.key_scale.data<A>()),
          key_shift(given.key_shift.data<A>()),
          value_bias(given.value_bias.data<A>()) {}
  };
  template <class T, class A = Accumulator<T>>
  static A inverse_length(const T* z, const Weights<A>& weights, std::int64_t begin,
                          std::int64_t end) {
    A square = A(kHeadLengthEps);
    for (std::int64_t c = begin; c < end; ++c) {
      const A u = A(z[c]) + weights.z_bias[c];
      square += u * u;
    }
    return 1 / std::sqrt(square);
  }
  template <class T, class A = Accumulator<T>>
  static A dunit(const T* d, std::int64_t c, std::int64_t width, const Weights<A>& weights) {
    return A(d[c]) * weights.query_scale[c] + A(d[width + c]) * weights.key_scale[c];
  }
};

const CpuSharedHeads cpu_shared_heads;

const SharedHeadsKernels& kernels(Device device) {
  return on<cpu_shared_heads, cuda_shared_heads>(device);
}

void check_weights(const char* who, const Tensor& weights, std::int64_t width, DType dtype) {
  const DType full = accumulator_of(dtype);
  check(weights.shape() == Shape{width} && weights.dtype() == full, who, ": a weight is ",
        weights.dtype(), weights.shape(), ", expected ", full, "[", width, "]");
}

}  // namespace

Tensor shared_heads(const Tensor& z, const Tensor& w, const SharedWeights& weights,
                    const HeadLayout& layout) {
  layout.check_rows("shared_heads", z, layout.query_width());
  layout.check_rows("shared_heads", w, layout.query_width());
  check(layout.kv_heads == layout.heads, "shared_heads: ", layout.kv_heads, " key heads for ",
        layout.heads, " query heads");
  SharedHeadsKernels::Heads args{
      .z = z.unwatched(),
      .w = w.unwatched(),
      .weights = {},
      .layout = layout,
      .qkv = Tensor::empty({layout.rows(), layout.qkv_width()}, z.dtype(), z.device())};
  for (Tensor SharedWeights::*each :
       {&SharedWeights::z_bias, &SharedWeights::query_scale, &SharedWeights::query_shift,
        &SharedWeights::key_scale, &SharedWeights::key_shift, &SharedWeights::value_bias}) {
    check_weights("shared_heads", weights.*each, layout.query_width(), z.dtype());
    args.weights.*each = (weights.*each).unwatched();
  }
  kernels(z.device()).heads(args);
  SharedHeadsKernels::Heads kept = args;
  kept.qkv = {};
  return record(args.qkv,
                {z, w, weights.z_bias, weights.query_scale, weights.query_shift, weights.key_scale,
                 weights.key_shift, weights.value_bias},
                [kept](const Tensor& dqkv, Gradients& gradients) {
                  kernels(dqkv.device())
                      .heads_grad({.forward = kept,
                                   .dqkv = dqkv,
                                   .dz = gradients.of(0),
                                   .dw = gradients.of(1),
                                   .dz_bias = gradients.of(2),
                                   .dquery_scale = gradients.of(3),
                                   .dquery_shift = gradients.of(4),
                                   .dkey_scale = gradients.of(5),
                                   .dkey_shift = gradients.of(6),
                                   .dvalue_bias = gradients.of(7)});
                });
}

Tensor gated_heads(const Tensor& gate, const Tensor& bias, const Tensor& x) {
  const auto [rows, width] = x.dims<2>();
  check(gate.shape() == x.shape() && gate.dtype() == x.dtype(), "gated_heads: the gate is ",
        gate.dtype(), gate.shape(), ", expected ", x.dtype(), x.shape());
  check_weights("gated_heads", bias, width, x.dtype());
  const Tensor y = Tensor::empty_like(x);
  const SharedHeadsKernels::Gate args{
      .gate = gate.unwatched(), .bias = bias.unwatched(), .x = x.unwatched(), .y = {}};
  SharedHeadsKernels::Gate whole = args;
  whole.y = y;
  kernels(x.device()).gate(whole);
  return record(y, {gate, bias, x}, [args](const Tensor& dy, Gradients& gradients) {
    kernels(dy.device())
        .gate_grad({.forward = args,
                    .dy = dy,
                    .dgate = gradients.of(0),
                    .dbias = gradients.of(1),
                    .dx = gradients.of(2)});
  });
}

}  // namespace infini
