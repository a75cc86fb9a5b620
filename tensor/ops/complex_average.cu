#include "tensor/ops/complex_average.cuh"
#include "tensor/ops/detach.cuh"
#include "tensor/ops/launch.cuh"

namespace infini {
namespace {

using namespace averages;

// A block for some channels and a chunk: its averages from nothing, and how many of its tokens
// count.
template <class N>
__global__ void __launch_bounds__(kThreads) local_kernel(Averages<N> in, int* counts) {
  using A = Compute<N>;
  const Place<N> at(in);
  const Lane<N> lane(in, at.channel);
  Number<A> s;
  int count = 0;
  for (std::int64_t t = at.begin; t < at.end; ++t) {
    if (!kept(in, at, t)) continue;
    s = lane.q * s;
    s.re += lane.p * A(in.x[(at.row + t) * in.width + lane.c]);
    ++count;
  }
  const std::int64_t chunk = at.b * in.chunks() + at.chunk;
  if (lane.works) in.starts[lane.state(in, chunk)] = s;
  if (blockIdx.x == 0 && threadIdx.x == 0) counts[chunk] = count;
}

// A thread for each average of a batch row: from chunk to chunk.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    carry_kernel(Averages<N> in, const int* counts, const Number<A>* before, Number<A>* after) {
  const Lane<N> lane(in, (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / in.lanes);
  if (!lane.works) return;
  const std::int64_t b = blockIdx.y, state = lane.state(in, b);
  Number<A> s = before ? before[state] : Number<A>{};
  for (std::int64_t chunk = 0; chunk < in.chunks(); ++chunk) {
    if (chunk % in.segment_chunks == 0 && in.resets &&
        in.resets[b * in.segments + chunk / in.segment_chunks])
      s = {};
    const std::int64_t index = b * in.chunks() + chunk;
    Number<A>& start = in.starts[lane.state(in, index)];
    const Number<A> local = start;
    start = s;
    s = power(lane.q, counts[index]) * s + local;
  }
  after[state] = s;
}

// As local_kernel, from the averages before the chunk.
template <class N>
__global__ void __launch_bounds__(kThreads) output_kernel(Averages<N> in, N* y) {
  using A = Compute<N>;
  const Place<N> at(in);
  const Lane<N> lane(in, at.channel);
  Number<A> s;
  if (lane.works) s = in.starts[lane.state(in, at.b * in.chunks() + at.chunk)];
  for (std::int64_t t = at.begin; t < at.end; ++t) {
    const std::int64_t i = (at.row + t) * in.width + lane.c;
    const A here = A(in.x[i]);
    if (kept(in, at, t)) {
      s = lane.q * s;
      s.re += lane.p * here;
    }
    const A sum = channel_sum((lane.eta * s).re, in.lanes);
    if (lane.leads) y[i] = N(sum * lane.scale + in.skip[lane.c] * here);
  }
}

// What one token adds to the gradient of its averages, and that of the averages before it.
template <class N, class A = Compute<N>>
__device__ Number<A> reached(const Lane<N>& lane, Number<A> g, A upstream) {
  return g + (upstream * lane.scale) * conjugate(lane.eta);
}

// As local_kernel, backwards: the gradient before the chunk where none comes from after it, and how
// many tokens count.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    local_grad_kernel(Averages<N> in, const N* dy, Number<A>* gradients, int* counts) {
  const Place<N> at(in);
  const Lane<N> lane(in, at.channel);
  Number<A> g;
  int count = 0;
  for (std::int64_t t = at.end; t-- > at.begin;) {
    g = reached(lane, g, dy ? A(dy[(at.row + t) * in.width + lane.c]) : A(0));
    if (!kept(in, at, t)) continue;
    g = conjugate(lane.q) * g;
    ++count;
  }
  const std::int64_t chunk = at.b * in.chunks() + at.chunk;
  if (lane.works) gradients[lane.state(in, chunk)] = g;
  if (blockIdx.x == 0 && threadIdx.x == 0) counts[chunk] = count;
}

// As carry_kernel, backwards: gradients become those of the averages that each chunk leaves.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    carry_grad_kernel(Averages<N> in, Detach detach, const int* counts, const Number<A>* dafter,
                      Number<A>* gradients, Number<A>* dbefore, bool accumulate) {
  const Lane<N> lane(in, (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / in.lanes);
  if (!lane.works) return;
  const std::int64_t b = blockIdx.y, state = lane.state(in, b);
  Number<A> g = dafter ? dafter[state] : Number<A>{};
  for (std::int64_t chunk = in.chunks(); chunk-- > 0;) {
    const std::int64_t index = b * in.chunks() + chunk, segment = chunk / in.segment_chunks;
    Number<A>& held = gradients[lane.state(in, index)];
    const Number<A> local = held;
    held = g;
    g = conjugate(power(lane.q, counts[index])) * g + local;
    if (chunk % in.segment_chunks == 0 &&
        ((in.resets && in.resets[b * in.segments + segment]) || detach.before(segment)))
      g = {};
  }
  if (dbefore) dbefore[state] = accumulate ? dbefore[state] + g : g;
}

// As output_kernel, backwards.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    input_grad_kernel(Averages<N> in, const N* dy, const Number<A>* gradients, N* dx,
                      bool accumulate) {
  const Place<N> at(in);
  const Lane<N> lane(in, at.channel);
  Number<A> g;
  if (lane.works) g = gradients[lane.state(in, at.b * in.chunks() + at.chunk)];
  for (std::int64_t t = at.end; t-- > at.begin;) {
    const std::int64_t i = (at.row + t) * in.width + lane.c;
    const A upstream = dy ? A(dy[i]) : A(0);
    const bool counts = kept(in, at, t);
    g = reached(lane, g, upstream);
    const A sum = channel_sum(lane.p * g.re, in.lanes);
    if (counts) g = conjugate(lane.q) * g;
    if (lane.leads)
      dx[i] =
          N((counts ? sum : A(0)) + in.skip[lane.c] * upstream + (accumulate ? A(dx[i]) : A(0)));
  }
}

// What a chunk adds to the gradients of the weights of an average, see complex_average.cpp.
template <class A>
struct WeightPart {
  A p, skip;  // the skip by the lane that leads
  Number<A> q, eta;
};

template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    weight_parts_kernel(Averages<N> in, const N* dy, const Number<A>* gradients,
                        WeightPart<A>* parts) {
  const Place<N> at(in);
  const Lane<N> lane(in, at.channel);
  if (!lane.works) return;
  const std::int64_t state = lane.state(in, at.b * in.chunks() + at.chunk);
  Number<A> s = in.starts[state], r, v;
  WeightPart<A> sums{};
  for (std::int64_t t = at.begin; t < at.end; ++t) {
    const std::int64_t i = (at.row + t) * in.width + lane.c;
    const A here = A(in.x[i]), upstream = dy ? A(dy[i]) : A(0), scaled = upstream * lane.scale;
    if (kept(in, at, t)) {
      v = lane.q * v + s;
      r = lane.q * r;
      r.re += here;
      s = lane.q * s;
      s.re += lane.p * here;
    }
    sums.skip += upstream * here;
    sums.eta = sums.eta + scaled * conjugate(s);
    sums.p += scaled * (lane.eta * r).re;
    sums.q = sums.q + scaled * conjugate(lane.eta * v);
  }
  const Number<A> leaving = gradients[state];
  sums.p += (conjugate(leaving) * r).re;
  sums.q = sums.q + leaving * conjugate(v);
  parts[state] = sums;
}

// Where the gradients of the weights go; null where nobody asked.
template <class A>
struct WeightTargets {
  A *alpha, *delta, *frequency, *skip, *eta;
  bool add_alpha, add_delta, add_frequency, add_skip, add_eta;
};

template <class A>
__device__ void put(A* to, std::int64_t at, A value, bool accumulate) {
  if (to) to[at] = value + (accumulate ? to[at] : A(0));
}

// A thread for each average: the parts of all chunks of all batch rows in their order.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    weight_grad_kernel(Averages<N> in, const WeightPart<A>* parts, WeightTargets<A> to) {
  const Lane<N> lane(in, (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / in.lanes);
  WeightPart<A> sums{};
  for (std::int64_t row = 0; lane.works && row < in.batch * in.chunks(); ++row) {
    const WeightPart<A> part = parts[lane.state(in, row)];
    sums = {sums.p + part.p, sums.skip + part.skip, sums.q + part.q, sums.eta + part.eta};
  }
  const Number<A> along = sums.q * conjugate(lane.turn);  // by length and, times it, by angle
  const A p = lane.p, d = lane.damping;
  const A dturning = channel_sum((1 - p * d) * along.im * lane.step, in.lanes);
  if (lane.works) {
    const std::int64_t i = lane.c * in.count + lane.k;
    put(to.alpha, i, (sums.p - d * along.re) * p * (1 - p), to.add_alpha);
    put(to.delta, i, -p * along.re * d * (1 - d), to.add_delta);
    put(to.eta, 2 * i, sums.eta.re, to.add_eta);
    put(to.eta, 2 * i + 1, sums.eta.im, to.add_eta);
  }
  if (!lane.leads) return;
  put(to.frequency, lane.c, dturning * lane.turning * (1 - lane.turning), to.add_frequency);
  put(to.skip, lane.c, sums.skip, to.add_skip);
}

class CudaComplexAverage final : public ComplexAverageKernels {
 public:
  void average(const Average& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() {
      using N = Native<T>;
      const Averages<N> in = averages_of<T>(args);
      const Tensor counts = counts_of(args);
      launch("complex_average", local_kernel<N>, chunk_grid(in), kThreads, 0, in,
             counts.data<std::int32_t>());
      launch("complex_average", carry_kernel<N>, row_grid(in), kThreads, 0, in,
             counts.data<std::int32_t>(), numbers<N>(args.before), numbers<N>(args.after));
      launch("complex_average", output_kernel<N>, chunk_grid(in), kThreads, 0, in,
             native<T>(args.y));
    });
  }

  void average_grad(const AverageGrad& args) const override {
    dispatch_float(args.forward.x.dtype(), [&]<class T>() {
      using N = Native<T>;
      using A = Compute<N>;
      const Averages<N> in = averages_of<T>(args.forward);
      const Tensor counts = counts_of(args.forward),
                   gradients = Tensor::empty_like(args.forward.starts);
      const N* dy = native<T>(args.dy);
      launch("complex_average_grad", local_grad_kernel<N>, chunk_grid(in), kThreads, 0, in, dy,
             numbers<N>(gradients), counts.data<std::int32_t>());
      launch("complex_average_grad", carry_grad_kernel<N>, row_grid(in), kThreads, 0, in,
             detach_bits(args.detach), counts.data<std::int32_t>(), numbers<N>(args.dafter),
             numbers<N>(gradients), numbers<N>(args.dbefore.tensor), args.dbefore.accumulate);
      if (args.dx)
        launch("complex_average_grad", input_grad_kernel<N>, chunk_grid(in), kThreads, 0, in, dy,
               numbers<N>(gradients), native<T>(args.dx.tensor), args.dx.accumulate);

      static_assert(sizeof(WeightPart<A>) == 6 * sizeof(A));
      const Tensor parts = parts_of(args.forward);
      auto* const held = reinterpret_cast<WeightPart<A>*>(parts.data<A>());
      launch("complex_average_grad", weight_parts_kernel<N>, chunk_grid(in), kThreads, 0, in, dy,
             numbers<N>(gradients), held);
      const auto of = [](const GradTarget& target) {
        return target ? target.tensor.data<A>() : nullptr;
      };
      const WeightTargets<A> to{.alpha = of(args.dalpha),
                                .delta = of(args.ddelta),
                                .frequency = of(args.dfrequency),
                                .skip = of(args.dskip),
                                .eta = of(args.deta),
                                .add_alpha = args.dalpha.accumulate,
                                .add_delta = args.ddelta.accumulate,
                                .add_frequency = args.dfrequency.accumulate,
                                .add_skip = args.dskip.accumulate,
                                .add_eta = args.deta.accumulate};
      dim3 once = row_grid(in);
      once.y = 1;
      launch("complex_average_grad", weight_grad_kernel<N>, once, kThreads, 0, in, held, to);
    });
  }

 private:
  template <class N>
  static Number<Compute<N>>* numbers(const Tensor& tensor) {
    return tensor ? reinterpret_cast<Number<Compute<N>>*>(tensor.data<Compute<N>>()) : nullptr;
  }
  // Room for what each chunk adds to the gradients of each average's weights.
  static Tensor parts_of(const Average& args) {
    return Tensor::empty({args.starts.size() / 2, 6}, args.starts.dtype(), Device::kCuda);
  }
  // Room for the tokens of each chunk that count.
  static Tensor counts_of(const Average& args) {
    return Tensor::empty({args.layout.batch, args.chunks()}, DType::kInt32, Device::kCuda);
  }
  template <class T, class N = Native<T>>
  static Averages<N> averages_of(const Average& args) {
    using A = Compute<N>;
    const auto flags = [](const Tensor& tensor) {
      return tensor ? tensor.data<std::uint8_t>() : nullptr;
    };
    int lanes = 1;
    while (lanes < args.averages()) lanes *= 2;
    return {.x = native<T>(args.x),
            .alpha = args.weights.alpha.data<A>(),
            .delta = args.weights.delta.data<A>(),
            .frequency = args.weights.frequency.data<A>(),
            .skip = args.weights.skip.data<A>(),
            .eta = args.weights.eta.data<A>(),
            .keep = flags(args.keep),
            .resets = flags(args.resets),
            .starts = numbers<N>(args.starts),
            .width = args.channels(),
            .count = args.averages(),
            .segments = args.layout.segments,
            .tokens = args.layout.tokens,
            .segment_chunks = args.segment_chunks(),
            .batch = args.layout.batch,
            .lanes = lanes};
  }
  template <class N>
  static dim3 row_grid(const Averages<N>& in) {
    return {blocks_for(in.width * in.lanes, kThreads), static_cast<unsigned>(in.batch)};
  }
  template <class N>
  static dim3 chunk_grid(const Averages<N>& in) {
    return {blocks_for(in.width * in.lanes, kThreads),
            static_cast<unsigned>(in.segments * in.segment_chunks),
            static_cast<unsigned>(in.batch)};
  }
};

}  // namespace

const ComplexAverageKernels& cuda_complex_average() {
  static const CudaComplexAverage kernels;
  return kernels;
}

}  // namespace infini
