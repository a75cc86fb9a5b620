#include "tensor/ops/timestep_norm.h"

#include <cmath>

#include "tensor/ops/elementwise.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

using Norm = TimestepNormKernels::Norm;
using NormGrad = TimestepNormKernels::NormGrad;

// One group of channels of one batch row.
template <class T>
struct Group {
  using A = Accumulator<T>;
  std::int64_t b, g, width, channels, tokens;  // C, and those of a group
  const T* x;                                  // of the first token
  const A* weight;
  const A* bias;
  const std::uint8_t* keep;  // of the batch row, or null
  const A* counts;           // [row tokens]
  A* moments;                // of the first token, 2 G numbers apart
  std::int64_t stride;

  Group(const Norm& args, std::int64_t task)
      : b(task / args.groups),
        g(task % args.groups),
        width(args.x.shape()[1]),
        channels(width / args.groups),
        tokens(args.row_tokens()),
        x(args.x.data<T>() + b * tokens * width + g * channels),
        weight(args.weight.data<A>() + g * channels),
        bias(args.bias.data<A>() + g * channels),
        keep(args.keep ? args.keep.data<std::uint8_t>() + b * tokens : nullptr),
        counts(args.counts.data<A>() + b * tokens),
        moments(args.moments.data<A>() + (b * tokens * args.groups + g) * 2),
        stride(2 * args.groups) {}

  bool counts_token(std::int64_t t) const { return !keep || keep[t]; }
};

bool resets(const Norm& args, std::int64_t b, std::int64_t segment) {
  return args.resets && args.resets.data<std::uint8_t>()[b * args.layout.segments + segment];
}

class CpuTimestepNorm final : public TimestepNormKernels {
 public:
  void norm(const Norm& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() {
      count<T>(args);
      parallel_for(args.layout.batch * args.groups,
                   [&](std::int64_t task) { forward<T>(args, Group<T>(args, task)); });
    });
  }

  void norm_grad(const NormGrad& args) const override {
    dispatch_float(args.forward.x.dtype(), [&]<class T>() {
      const Norm& given = args.forward;
      const std::int64_t batch = given.layout.batch, width = given.x.shape()[1];
      const DType dtype = given.weight.dtype();
      const Tensor dweight = Tensor::zeros({batch, width}, dtype),
                   dbias = Tensor::zeros({batch, width}, dtype);
      parallel_for(batch * given.groups, [&](std::int64_t task) {
        backward<T>(args, Group<T>(given, task), dweight, dbias);
      });
      for (std::int64_t b = 0; b < batch; ++b) {
        const auto add = [&](const GradTarget& target, const Tensor& parts) {
          if (target)
            add_into({.tensor = target.tensor, .accumulate = target.accumulate || b > 0},
                     parts.slice(b, 1).reshape({width}));
        };
        add(args.dweight, dweight);
        add(args.dbias, dbias);
      }
    });
  }

 private:
  template <class T, class A = Accumulator<T>>
  static void count(const Norm& args) {
    const std::int64_t tokens = args.row_tokens();
    for (std::int64_t b = 0; b < args.layout.batch; ++b) {
      A n = args.before.tokens.data<A>()[b];
      for (std::int64_t t = 0; t < tokens; ++t) {
        const std::int64_t segment = t / args.layout.tokens;
        if (t % args.layout.tokens == 0 && resets(args, b, segment)) n = 0;
        if (!args.keep || args.keep.data<std::uint8_t>()[b * tokens + t]) n += 1;
        args.counts.data<A>()[b * tokens + t] = n;
      }
      args.after.tokens.data<A>()[b] = n;
    }
  }

  // A token's mean and variance join those of the tokens before it (Chan et al. 1979).
  template <class T, class A = Accumulator<T>>
  static void forward(const Norm& args, const Group<T>& in) {
    const A* before = args.before.moments.data<A>() + (in.b * args.groups + in.g) * 2;
    A mean = before[0], variance = before[1];
    T* y = args.y.data<T>() + (in.x - args.x.data<T>());
    for (std::int64_t t = 0; t < in.tokens; ++t) {
      const T* x = in.x + t * in.width;
      const A n = in.counts[t];
      if (t % args.layout.tokens == 0 && resets(args, in.b, t / args.layout.tokens))
        mean = variance = 0;
      if (in.counts_token(t)) {
        A own = 0, squares = 0;
        for (std::int64_t c = 0; c < in.channels; ++c) own += A(x[c]);
        own /= A(in.channels);
        for (std::int64_t c = 0; c < in.channels; ++c) squares += (A(x[c]) - own) * (A(x[c]) - own);
        const A step = own - mean;
        variance += (squares / A(in.channels) - variance + step * step * (n - 1) / n) / n;
        mean += step / n;
      }
      in.moments[t * in.stride] = mean;
      in.moments[t * in.stride + 1] = variance;
      const A inverse = A(1) / std::sqrt((n > 0 ? variance : A(1)) + A(args.eps));
      for (std::int64_t c = 0; c < in.channels; ++c)
        y[t * in.width + c] = T((A(x[c]) - mean) * inverse * in.weight[c] + in.bias[c]);
    }
    A* after = args.after.moments.data<A>() + (in.b * args.groups + in.g) * 2;
    after[0] = mean;
    after[1] = variance;
  }

  // With g = dy weight, inv = 1 / sqrt(var + eps) and N = n_t C / G:
  //   dmean_t = - inv sum_c g,   dvar_t = - inv^3 / 2 sum_c g (x - mean_t)
  //   dx[u, c] = g inv + A_u + 2 (x[u, c] B_u - D_u) for a token that counts, else g inv,
  //   A_u = sum_{t >= u} dmean_t / N,   B_u = sum dvar_t / N,   D_u = sum dvar_t mean_t / N
  // and the moments before the text weigh as much as n_0 tokens of all channels.
  template <class T, class A = Accumulator<T>>
  static void backward(const NormGrad& args, const Group<T>& in, const Tensor& dweights,
                       const Tensor& dbiases) {
    const Norm& given = args.forward;
    const std::int64_t at = (in.b * given.groups + in.g) * 2;
    const A channels = A(in.channels);
    A by_mean = 0, by_variance = 0, by_both = 0;
    const auto add = [&](A dmean, A dvariance, A mean, A n) {
      if (n == 0) return;
      by_mean += dmean / (n * channels);
      by_variance += dvariance / (n * channels);
      by_both += dvariance * mean / (n * channels);
    };
    if (args.dafter) {
      const A* dafter = args.dafter.data<A>() + at;
      add(dafter[0], dafter[1], in.moments[(in.tokens - 1) * in.stride], in.counts[in.tokens - 1]);
    }
    const T* dy = args.dy ? args.dy.data<T>() + (in.x - given.x.data<T>()) : nullptr;
    T* dx = args.dx ? args.dx.tensor.data<T>() + (in.x - given.x.data<T>()) : nullptr;
    A* dweight = dweights.data<A>() + in.b * in.width + in.g * in.channels;
    A* dbias = dbiases.data<A>() + in.b * in.width + in.g * in.channels;
    for (std::int64_t t = in.tokens; t-- > 0;) {
      const T* x = in.x + t * in.width;
      const A mean = in.moments[t * in.stride], n = in.counts[t];
      const A inverse =
          A(1) / std::sqrt((n > 0 ? in.moments[t * in.stride + 1] : A(1)) + A(given.eps));
      const T* dy_row = dy ? dy + t * in.width : nullptr;
      A sum = 0, product = 0;
      for (std::int64_t c = 0; dy && c < in.channels; ++c) {
        const A upstream = A(dy_row[c]), centred = A(x[c]) - mean;
        sum += upstream * in.weight[c];
        product += upstream * in.weight[c] * centred;
        dweight[c] += upstream * centred * inverse;
        dbias[c] += upstream;
      }
      add(-inverse * sum, -inverse * inverse * inverse * product / 2, mean, n);
      for (std::int64_t c = 0; dx && c < in.channels; ++c) {
        T& to = dx[t * in.width + c];
        A value = dy ? A(dy_row[c]) * in.weight[c] * inverse : A(0);
        if (in.counts_token(t)) value += by_mean + 2 * (A(x[c]) * by_variance - by_both);
        to = T(value + (args.dx.accumulate ? A(to) : A(0)));
      }
      const std::int64_t segment = t / given.layout.tokens;
      if (t % given.layout.tokens == 0 &&
          (resets(given, in.b, segment) || (!args.detach.empty() && args.detach[segment])))
        by_mean = by_variance = by_both = 0;
    }
    if (!args.dbefore) return;
    A* to = args.dbefore.tensor.data<A>() + at;
    const A weight = given.before.tokens.data<A>()[in.b] * channels,
            mean = given.before.moments.data<A>()[at];
    const bool add_up = args.dbefore.accumulate;
    to[0] = weight * (by_mean + 2 * (mean * by_variance - by_both)) + (add_up ? to[0] : A(0));
    to[1] = weight * by_variance + (add_up ? to[1] : A(0));
  }
};

const CpuTimestepNorm cpu_timestep_norm;

const TimestepNormKernels& kernels(Device device) {
  return on<cpu_timestep_norm, cuda_timestep_norm>(device);
}

}  // namespace

TimestepNormed timestep_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                             const TimestepStatistics& before, const Tensor& keep,
                             const ScanBorders& borders, const HeadLayout& layout, int groups,
                             double eps) {
  const auto [rows, width] = x.dims<2>();
  check(rows == layout.rows(), "timestep_norm: expected ", layout.rows(), " rows, got ", x.shape());
  check(groups >= 1 && width % groups == 0, "timestep_norm: ", width, " channels in ", groups,
        " groups");
  const DType full = accumulator_of(x.dtype());
  for (const Tensor& each : {weight, bias})
    check(each.shape() == Shape{width} && each.dtype() == full, "timestep_norm: weight or bias is ",
          each.dtype(), each.shape(), ", expected ", full, "[", width, "]");
  const Shape counts{layout.batch, 1}, moments{layout.batch, groups, 2};
  check(!before.moments || (before.moments.shape() == moments && before.moments.dtype() == full &&
                            before.tokens.shape() == counts && before.tokens.dtype() == full),
        "timestep_norm: what came before is ", before.moments.shape(), ", expected ", moments);

  const Device device = x.device();
  const TimestepNormKernels::Norm args{
      .x = x.unwatched(),
      .weight = weight.unwatched(),
      .bias = bias.unwatched(),
      .before = {.tokens = before.tokens ? before.tokens : Tensor::zeros(counts, full, device),
                 .moments = before.moments ? before.moments.unwatched()
                                           : Tensor::zeros(moments, full, device)},
      .keep = keep,
      .resets = borders.resets,
      .layout = layout,
      .groups = groups,
      .eps = eps,
      .y = Tensor::empty_like(x),
      .counts = Tensor::empty({rows}, full, device),
      .moments = Tensor::empty({rows, groups, 2}, full, device),
      .after = {.tokens = Tensor::empty(counts, full, device),
                .moments = Tensor::empty(moments, full, device)}};
  kernels(device).norm(args);

  TimestepNormKernels::Norm kept = args;
  kept.y = {};
  kept.after = {};
  const auto [y, after] = record_all<2>(
      {args.y, args.after.moments}, {x, weight, bias, before.moments},
      [kept, detach = borders.detach](std::span<const Tensor> doutputs, Gradients& gradients) {
        kernels(kept.x.device())
            .norm_grad({.forward = kept,
                        .detach = detach,
                        .dy = doutputs[0],
                        .dafter = doutputs[1],
                        .dx = gradients.of(0),
                        .dweight = gradients.of(1),
                        .dbias = gradients.of(2),
                        .dbefore = gradients.of(3)});
      });
  return {.y = y, .after = {.tokens = args.after.tokens, .moments = after}};
}

}  // namespace infini
