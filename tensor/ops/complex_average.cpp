#include "tensor/ops/complex_average.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "tensor/parallel.h"

namespace infini {
namespace {

using Average = ComplexAverageKernels::Average;
using AverageGrad = ComplexAverageKernels::AverageGrad;

// A number for each average of a channel, real and imaginary parts apart.
template <class A>
using Row = std::array<A, kMostAverages>;

template <class A>
struct Complex {
  Row<A> re{}, im{};
};

// What the averages of a channel are made with.
template <class A>
struct Channel {
  std::int64_t count;
  A scale, skip, turning;  // 1 / sqrt(E), and sigmoid(frequency)
  Row<A> p{}, damping{}, cosine{}, sine{};
  Complex<A> q, eta;

  Channel(const AverageWeights& weights, std::int64_t c)
      : count(weights.alpha.shape()[1]),
        scale(1 / std::sqrt(A(count))),
        skip(weights.skip.data<A>()[c]),
        turning(sigmoid(weights.frequency.data<A>()[c])) {
    for (std::int64_t k = 0; k < count; ++k) {
      const std::int64_t i = c * count + k;
      p[k] = sigmoid(weights.alpha.data<A>()[i]);
      damping[k] = sigmoid(weights.delta.data<A>()[i]);
      const A theta = step(k) * turning, length = 1 - p[k] * damping[k];
      cosine[k] = std::cos(theta);
      sine[k] = std::sin(theta);
      q.re[k] = length * cosine[k];
      q.im[k] = length * sine[k];
      eta.re[k] = weights.eta.data<A>()[2 * i];
      eta.im[k] = weights.eta.data<A>()[2 * i + 1];
    }
  }
  static A sigmoid(A x) { return 1 / (1 + std::exp(-x)); }
  A step(std::int64_t k) const { return A(2 * std::numbers::pi) * A(k + 1) / A(count); }
};

template <class A>
Complex<A> load(const A* from, std::int64_t count) {
  Complex<A> s;
  for (std::int64_t k = 0; k < count; ++k) {
    s.re[k] = from[2 * k];
    s.im[k] = from[2 * k + 1];
  }
  return s;
}
template <class A>
void store(const Complex<A>& s, std::int64_t count, A* to, bool accumulate = false) {
  for (std::int64_t k = 0; k < count; ++k) {
    to[2 * k] = s.re[k] + (accumulate ? to[2 * k] : A(0));
    to[2 * k + 1] = s.im[k] + (accumulate ? to[2 * k + 1] : A(0));
  }
}

// s = q s + p x
template <class A>
void step_forward(const Channel<A>& in, A x, Complex<A>& s) {
#pragma omp simd
  for (std::int64_t k = 0; k < kMostAverages; ++k) {
    const A re = in.q.re[k] * s.re[k] - in.q.im[k] * s.im[k] + in.p[k] * x,
            im = in.q.re[k] * s.im[k] + in.q.im[k] * s.re[k];
    s.re[k] = re;
    s.im[k] = im;
  }
}

// Where the chunks of a row lie.
struct Chunk {
  std::int64_t begin, end;  // tokens of the batch row
  bool opens;               // a segment
  std::int64_t segment;
};
Chunk chunk_of(const Average& args, std::int64_t index) {
  const std::int64_t tokens = args.layout.tokens, segment = index / args.segment_chunks(),
                     part = index % args.segment_chunks() * ComplexAverageKernels::kChunk;
  return {.begin = segment * tokens + part,
          .end = segment * tokens + std::min(part + ComplexAverageKernels::kChunk, tokens),
          .opens = part == 0,
          .segment = segment};
}

// What a channel adds to the gradients of its weights.
template <class A>
struct WeightGrads {
  Row<A> p{};
  Complex<A> q, eta;
  A skip = 0;
};

class CpuComplexAverage final : public ComplexAverageKernels {
 public:
  void average(const Average& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() {
      parallel_for(args.layout.batch * args.channels(), [&](std::int64_t task) {
        forward<T>(args, task / args.channels(), task % args.channels());
      });
    });
  }

  // A channel's batch rows add one after the other.
  void average_grad(const AverageGrad& args) const override {
    dispatch_float(args.forward.x.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      parallel_for(args.forward.channels(), [&](std::int64_t c) {
        const Channel<A> in(args.forward.weights, c);
        WeightGrads<A> sums;
        for (std::int64_t b = 0; b < args.forward.layout.batch; ++b)
          backward<T>(args, in, b, c, sums);
        put(args, in, c, sums);
      });
    });
  }

 private:
  static const std::uint8_t* flags(const Tensor& tensor, std::int64_t first) {
    return tensor ? tensor.data<std::uint8_t>() + first : nullptr;
  }

  template <class T>
  static void forward(const Average& args, std::int64_t b, std::int64_t c) {
    using A = Accumulator<T>;
    const Channel<A> in(args.weights, c);
    const std::int64_t width = args.channels(), tokens = args.layout.segments * args.layout.tokens,
                       state = (b * width + c) * in.count * 2;
    const std::uint8_t *keep = flags(args.keep, b * tokens),
                       *resets = flags(args.resets, b * args.layout.segments);
    const T* x = args.x.data<T>() + b * tokens * width + c;
    T* y = args.y.data<T>() + b * tokens * width + c;
    Complex<A> s;
    if (args.before) s = load(args.before.data<A>() + state, in.count);
    for (std::int64_t part = 0; part < args.chunks(); ++part) {
      const Chunk chunk = chunk_of(args, part);
      if (chunk.opens && resets && resets[chunk.segment]) s = {};
      store(s, in.count,
            args.starts.data<A>() + ((b * args.chunks() + part) * width + c) * in.count * 2);
      for (std::int64_t t = chunk.begin; t < chunk.end; ++t) {
        const A here = A(x[t * width]);
        if (!keep || keep[t]) step_forward(in, here, s);
        A sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t k = 0; k < kMostAverages; ++k)
          sum += in.eta.re[k] * s.re[k] - in.eta.im[k] * s.im[k];
        y[t * width] = T(sum * in.scale + in.skip * here);
      }
    }
    store(s, in.count, args.after.data<A>() + state);
  }

  // With g_t the gradient of s_t as a complex number, real part by real part:
  //   g_t = conj(q) g_{t+1} + dy_t conj(eta) / sqrt(E),   dx_t = sum_k p Re(g_t) + skip dy_t
  // What p and q get, a chunk works out forwards, from r_t = ds_t / dp = q r_{t-1} + x_t and
  // v_t = ds_t / dq = q v_{t-1} + s_{t-1}, both 0 where it begins: dy_t pairs with eta r_t and
  // eta v_t, and the gradient of the s that it leaves with the last r and v.
  template <class T, class A = Accumulator<T>>
  static void backward(const AverageGrad& args, const Channel<A>& in, std::int64_t b,
                       std::int64_t c, WeightGrads<A>& sums) {
    const Average& given = args.forward;
    const std::int64_t width = given.channels(),
                       tokens = given.layout.segments * given.layout.tokens,
                       state = (b * width + c) * in.count * 2, first = b * tokens * width + c;
    const std::uint8_t *keep = flags(given.keep, b * tokens),
                       *resets = flags(given.resets, b * given.layout.segments);
    const T *x = given.x.data<T>() + first, *dy = args.dy ? args.dy.data<T>() + first : nullptr;
    T* dx = args.dx ? args.dx.tensor.data<T>() + first : nullptr;
    Complex<A> g;
    if (args.dafter) g = load(args.dafter.data<A>() + state, in.count);
    for (std::int64_t part = given.chunks(); part-- > 0;) {
      const Chunk chunk = chunk_of(given, part);
      weights_of_chunk(
          in, chunk, x, dy, width, keep,
          load(given.starts.data<A>() + ((b * given.chunks() + part) * width + c) * in.count * 2,
               in.count),
          g, sums);
      for (std::int64_t t = chunk.end; t-- > chunk.begin;) {
        const A upstream = dy ? A(dy[t * width]) : A(0), scaled = upstream * in.scale;
        const bool kept = !keep || keep[t];
        A sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t k = 0; k < kMostAverages; ++k) {
          const A re = g.re[k] + scaled * in.eta.re[k], im = g.im[k] - scaled * in.eta.im[k];
          sum += in.p[k] * re;
          g.re[k] = kept ? in.q.re[k] * re + in.q.im[k] * im : re;
          g.im[k] = kept ? in.q.re[k] * im - in.q.im[k] * re : im;
        }
        if (!dx) continue;
        T& to = dx[t * width];
        to = T((kept ? sum : A(0)) + in.skip * upstream + (args.dx.accumulate ? A(to) : A(0)));
      }
      if (chunk.opens && ((resets && resets[chunk.segment]) ||
                          (!args.detach.empty() && args.detach[chunk.segment])))
        g = {};
    }
    if (args.dbefore)
      store(g, in.count, args.dbefore.tensor.data<A>() + state, args.dbefore.accumulate);
  }

  template <class T, class A = Accumulator<T>>
  static void weights_of_chunk(const Channel<A>& in, const Chunk& chunk, const T* x, const T* dy,
                               std::int64_t width, const std::uint8_t* keep, Complex<A> s,
                               const Complex<A>& leaving, WeightGrads<A>& sums) {
    Complex<A> r, v;
    for (std::int64_t t = chunk.begin; t < chunk.end; ++t) {
      const A here = A(x[t * width]), upstream = dy ? A(dy[t * width]) : A(0),
              scaled = upstream * in.scale;
      const bool kept = !keep || keep[t];
      sums.skip += upstream * here;
#pragma omp simd
      for (std::int64_t k = 0; k < kMostAverages; ++k) {
        const A qre = kept ? in.q.re[k] : A(1), qim = kept ? in.q.im[k] : A(0),
                came = kept ? A(1) : A(0);
        const A vre = qre * v.re[k] - qim * v.im[k] + came * s.re[k],
                vim = qre * v.im[k] + qim * v.re[k] + came * s.im[k],
                rre = qre * r.re[k] - qim * r.im[k] + came * here,
                rim = qre * r.im[k] + qim * r.re[k],
                sre = qre * s.re[k] - qim * s.im[k] + came * in.p[k] * here,
                sim = qre * s.im[k] + qim * s.re[k];
        v.re[k] = vre, v.im[k] = vim;
        r.re[k] = rre, r.im[k] = rim;
        s.re[k] = sre, s.im[k] = sim;
        sums.eta.re[k] += scaled * sre;
        sums.eta.im[k] -= scaled * sim;
        sums.p[k] += scaled * (in.eta.re[k] * rre - in.eta.im[k] * rim);
        sums.q.re[k] += scaled * (in.eta.re[k] * vre - in.eta.im[k] * vim);
        sums.q.im[k] -= scaled * (in.eta.re[k] * vim + in.eta.im[k] * vre);
      }
    }
    for (std::int64_t k = 0; k < in.count; ++k) {
      sums.p[k] += leaving.re[k] * r.re[k] + leaving.im[k] * r.im[k];
      sums.q.re[k] += leaving.re[k] * v.re[k] + leaving.im[k] * v.im[k];
      sums.q.im[k] += leaving.im[k] * v.re[k] - leaving.re[k] * v.im[k];
    }
  }

  // With q = l e^{i theta} and l = 1 - p d:  dl = dq_re cos + dq_im sin,  dtheta = l (dq_im cos -
  // dq_re sin),  and a sigmoid's gradient is p (1 - p) times what p gets.
  template <class A>
  static void put(const AverageGrad& args, const Channel<A>& in, std::int64_t c,
                  const WeightGrads<A>& sums) {
    const auto add = [](const GradTarget& target, std::int64_t at, A value) {
      if (!target) return;
      A& to = target.tensor.data<A>()[at];
      to = value + (target.accumulate ? to : A(0));
    };
    A dturning = 0;
    for (std::int64_t k = 0; k < in.count; ++k) {
      const std::int64_t at = c * in.count + k;
      const A p = in.p[k], d = in.damping[k];
      const A dlength = sums.q.re[k] * in.cosine[k] + sums.q.im[k] * in.sine[k],
              dtheta = (1 - p * d) * (sums.q.im[k] * in.cosine[k] - sums.q.re[k] * in.sine[k]);
      add(args.dalpha, at, (sums.p[k] - d * dlength) * p * (1 - p));
      add(args.ddelta, at, -p * dlength * d * (1 - d));
      add(args.deta, 2 * at, sums.eta.re[k]);
      add(args.deta, 2 * at + 1, sums.eta.im[k]);
      dturning += dtheta * in.step(k);
    }
    add(args.dfrequency, c, dturning * in.turning * (1 - in.turning));
    add(args.dskip, c, sums.skip);
  }
};

const CpuComplexAverage cpu_complex_average;

const ComplexAverageKernels& kernels(Device device) {
  return on<cpu_complex_average, cuda_complex_average>(device);
}

}  // namespace

Averaged complex_average(const Tensor& x, const AverageWeights& weights, const Tensor& before,
                         const Tensor& keep, const ScanBorders& borders, const HeadLayout& layout) {
  const auto [rows, width] = x.dims<2>();
  check(rows == layout.rows(), "complex_average: expected ", layout.rows(), " rows, got ",
        x.shape());
  const auto [channels, averages] = weights.alpha.dims<2>();
  check(averages >= 1 && averages <= kMostAverages, "complex_average: ", averages,
        " averages of a channel, expected 1 to ", +kMostAverages);
  const DType full = accumulator_of(x.dtype());
  const auto expect = [&](const char* what, const Tensor& tensor, const Shape& shape) {
    check(tensor.shape() == shape && tensor.dtype() == full, "complex_average: ", what, " is ",
          tensor.dtype(), tensor.shape(), ", expected ", full, shape);
  };
  const Shape state{layout.batch, width, averages, 2};
  expect("alpha", weights.alpha, {width, averages});
  expect("delta", weights.delta, {width, averages});
  expect("frequency", weights.frequency, {width});
  expect("skip", weights.skip, {width});
  expect("eta", weights.eta, {width, averages, 2});
  if (before) expect("what came before", before, state);

  ComplexAverageKernels::Average args{.x = x.unwatched(),
                                      .weights = {.alpha = weights.alpha.unwatched(),
                                                  .delta = weights.delta.unwatched(),
                                                  .frequency = weights.frequency.unwatched(),
                                                  .skip = weights.skip.unwatched(),
                                                  .eta = weights.eta.unwatched()},
                                      .before = before ? before.unwatched() : Tensor{},
                                      .keep = keep,
                                      .resets = borders.resets,
                                      .layout = layout,
                                      .y = Tensor::empty_like(x),
                                      .starts = {},
                                      .after = Tensor::empty(state, full, x.device())};
  args.starts = Tensor::empty({layout.batch, args.chunks(), width, averages, 2}, full, x.device());
  kernels(x.device()).average(args);

  ComplexAverageKernels::Average kept = args;
  kept.before = kept.y = kept.after = {};
  const auto [y, after] = record_all<2>(
      {args.y, args.after},
      {x, weights.alpha, weights.delta, weights.frequency, weights.skip, weights.eta, before},
      [kept, detach = borders.detach](std::span<const Tensor> doutputs, Gradients& gradients) {
        kernels(kept.x.device())
            .average_grad({.forward = kept,
                           .detach = detach,
                           .dy = doutputs[0],
                           .dafter = doutputs[1],
                           .dx = gradients.of(0),
                           .dalpha = gradients.of(1),
                           .ddelta = gradients.of(2),
                           .dfrequency = gradients.of(3),
                           .dskip = gradients.of(4),
                           .deta = gradients.of(5),
                           .dbefore = gradients.of(6)});
      });
  return {.y = y, .after = after};
}

}  // namespace infini
