#include "tensor/ops/scan.h"

#include "tensor/ops/gemm.h"
#include "tensor/ops/tile.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

// A state is cut into blocks that evolve by themselves: single numbers when accumulating (grouped
// to make a loop worth its while), one K x K matrix of a head in the affine form.
struct Extents {
  std::int64_t batch, segments, state, block, width;

  Extents(const Shape& sums, const Tensor& overlap) {
    batch = sums[0];
    segments = sums[1];
    state = sums.size() > 0 ? sums.size() / (batch * segments) : 0;
    width = overlap ? overlap.shape()[-1] : 0;
    block = overlap ? width * width : 2048;
  }
  std::int64_t blocks() const { return (state + block - 1) / block; }
};

class CpuScan final : public ScanKernels {
 public:
  void scan(const Forward& args) const override {
    dispatch_accumulator(args.sums.dtype(), [&]<class A>() {
      const Extents n(args.sums.shape(), args.overlap);
      parallel_for(n.batch * n.blocks(), [&](std::int64_t task) {
        const std::int64_t b = task / n.blocks(), begin = task % n.blocks() * n.block;
        forward<A>(args, n, b, begin, std::min(n.block, n.state - begin));
      });
    });
  }

  void scan_grad(const Backward& args) const override {
    dispatch_accumulator(args.dtype, [&]<class A>() {
      const Extents n(args.shape, args.overlap);
      parallel_for(n.batch * n.blocks(), [&](std::int64_t task) {
        const std::int64_t b = task / n.blocks(), begin = task % n.blocks() * n.block;
        backward<A>(args, n, b, begin, std::min(n.block, n.state - begin));
      });
    });
  }

  void group_scan(const GroupForward& args) const override {
    dispatch_accumulator(args.after.dtype(), [&]<class A>() {
      const auto [groups, stride] = args.sums.all.dims<2>();
      each_piece(args.after.shape(), [&](std::int64_t b, std::int64_t begin, std::int64_t count) {
        A* const now = args.after.data<A>() + begin;
        if (args.initial)
          std::copy_n(args.initial.data<A>() + begin, count, now);
        else
          std::fill_n(now, count, A(0));
        for (std::int64_t q = 0; q < groups; ++q) {
          if (q == args.index) std::copy_n(now, count, args.before.data<A>() + begin);
          if (is_reset(args.resets, b * groups + q)) std::fill_n(now, count, A(0));
          const A* const sums = args.sums.all.data<A>() + q * stride + args.sums.begin + begin;
          for (std::int64_t i = 0; i < count; ++i) now[i] += sums[i];
        }
      });
    });
  }

  void group_scan_grad(const GroupBackward& args) const override {
    dispatch_accumulator(args.dbefore.all.dtype(), [&]<class A>() {
      const auto [groups, stride] = args.dbefore.all.dims<2>();
      each_piece(args.state, [&](std::int64_t b, std::int64_t begin, std::int64_t count) {
        A* const gradient = scratch<A, 0>(count);
        if (args.dafter)
          std::copy_n(args.dafter.data<A>() + begin, count, gradient);
        else
          std::fill_n(gradient, count, A(0));
        const auto put = [&](const GradTarget& target) {
          if (target)
            store_tile(gradient, 1, count, target.tensor.data<A>() + begin, count,
                       target.accumulate);
        };
        for (std::int64_t q = groups - 1; q >= 0; --q) {
          if (q == args.index) put(args.dsums);
          if (is_reset(args.resets, b * groups + q) || (!args.detach.empty() && args.detach[q]))
            std::fill_n(gradient, count, A(0));
          const A* const dbefore =
              args.dbefore.all.data<A>() + q * stride + args.dbefore.begin + begin;
          for (std::int64_t i = 0; i < count; ++i) gradient[i] += dbefore[i];
        }
        put(args.dinitial);
      });
    });
  }

 private:
  static bool is_reset(const Tensor& resets, std::int64_t at) {
    return resets && resets.data<std::uint8_t>()[at];
  }
  // Calls use(row, first number, count) for pieces of states [B, ...], each within a row.
  template <class Use>
  static void each_piece(const Shape& state, const Use& use) {
    constexpr std::int64_t kPiece = 2048;
    const std::int64_t rows = state[0], size = rows > 0 ? state.size() / rows : 0;
    const std::int64_t pieces = (size + kPiece - 1) / kPiece;
    parallel_for(rows * pieces, [&](std::int64_t task) {
      const std::int64_t b = task / pieces, begin = task % pieces * kPiece;
      use(b, b * size + begin, std::min(kPiece, size - begin));
    });
  }

  template <class A>
  static void forward(const Forward& args, const Extents& n, std::int64_t b, std::int64_t begin,
                      std::int64_t count) {
    A* state = args.after.data<A>() + b * n.state + begin;
    if (args.initial)
      std::copy_n(args.initial.data<A>() + b * n.state + begin, count, state);
    else
      std::fill_n(state, count, A(0));
    for (std::int64_t s = 0; s < n.segments; ++s) {
      if (is_reset(args.resets, b * n.segments + s)) std::fill_n(state, count, A(0));
      const std::int64_t at = (b * n.segments + s) * n.state + begin;
      const A* sums = args.sums.data<A>() + at;
      A* before = args.before.data<A>() + at;
      std::copy_n(state, count, before);
      if (args.overlap) {
        A* change = scratch<A, 0>(count);
        gemm(false, false, n.width, n.width, n.width, args.overlap.data<A>() + at, n.width, before,
             n.width, change, n.width, false);
        for (std::int64_t i = 0; i < count; ++i) state[i] += sums[i] - change[i];
      } else {
        for (std::int64_t i = 0; i < count; ++i) state[i] += sums[i];
      }
    }
  }

  // With G the gradient of state_s:  dsums_s = G,  dA_s = -G before_s^T,  dbefore_s += G - A_s^T G.
  template <class A>
  static void backward(const Backward& args, const Extents& n, std::int64_t b, std::int64_t begin,
                       std::int64_t count) {
    A* gradient = scratch<A, 1>(count);
    if (args.dafter)
      std::copy_n(args.dafter.data<A>() + b * n.state + begin, count, gradient);
    else
      std::fill_n(gradient, count, A(0));
    for (std::int64_t s = n.segments - 1; s >= 0; --s) {
      const std::int64_t at = (b * n.segments + s) * n.state + begin;
      if (args.dsums)
        store_tile(gradient, 1, count, args.dsums.tensor.data<A>() + at, count,
                   args.dsums.accumulate);
      if (args.overlap) {
        A* change = scratch<A, 0>(count);
        if (args.doverlap) {
          gemm(false, true, n.width, n.width, n.width, gradient, n.width,
               args.before.data<A>() + at, n.width, change, n.width, false);
          for (std::int64_t i = 0; i < count; ++i) change[i] = -change[i];
          store_tile(change, 1, count, args.doverlap.tensor.data<A>() + at, count,
                     args.doverlap.accumulate);
        }
        gemm(true, false, n.width, n.width, n.width, args.overlap.data<A>() + at, n.width, gradient,
             n.width, change, n.width, false);
        for (std::int64_t i = 0; i < count; ++i) gradient[i] -= change[i];
      }
      if (args.dbefore) {
        const A* dbefore = args.dbefore.data<A>() + at;
        for (std::int64_t i = 0; i < count; ++i) gradient[i] += dbefore[i];
      }
      const bool reset = is_reset(args.resets, b * n.segments + s);
      const bool detach = !args.detach.empty() && args.detach[s];
      if (reset || detach) std::fill_n(gradient, count, A(0));
    }
    if (args.dinitial)
      store_tile(gradient, 1, count, args.dinitial.tensor.data<A>() + b * n.state + begin, count,
                 args.dinitial.accumulate);
  }
};

const CpuScan cpu_scan;

Scan run(const Tensor& overlap, const Tensor& sums, const Tensor& initial,
         const ScanBorders& borders) {
  check(sums.shape().rank() >= 2, "scan: sums have shape ", sums.shape(), ", expected [B, S, ...]");
  const std::int64_t batch = sums.shape()[0], segments = sums.shape()[1];
  Shape state({batch});
  if (sums.shape().rank() > 2) {
    std::vector<std::int64_t> extents(sums.shape().begin(), sums.shape().end());
    extents.erase(extents.begin() + 1);
    state = Shape(extents);
  }
  check(!initial || initial.shape() == state, "scan: the initial state is ", initial.shape(),
        ", expected ", state);
  check(!borders.resets || borders.resets.shape() == Shape{batch, segments}, "scan: resets are ",
        borders.resets.shape(), ", expected [", batch, ", ", segments, "]");
  check(borders.detach.empty() || static_cast<std::int64_t>(borders.detach.size()) == segments,
        "scan: ", borders.detach.size(), " detach marks for ", segments, " segments");
  const Tensor before = Tensor::empty_like(sums);
  const Tensor after = Tensor::empty(state, sums.dtype(), sums.device());
  const ScanKernels& device = on<cpu_scan, cuda_scan>(sums.device());
  device.scan({.overlap = overlap,
               .sums = sums,
               .initial = initial,
               .resets = borders.resets,
               .before = before,
               .after = after});

  const Tensor kept = overlap ? before : Tensor{};  // accumulating reads nothing back
  const auto outputs = record_all<2>(
      {before, after}, {overlap, sums, initial},
      [overlap, kept, resets = borders.resets, detach = borders.detach, shape = sums.shape(),
       dtype = sums.dtype(), &device](std::span<const Tensor> doutputs, Gradients& gradients) {
        device.scan_grad({.shape = shape,
                          .dtype = dtype,
                          .overlap = overlap,
                          .before = kept,
                          .resets = resets,
                          .detach = detach,
                          .dbefore = doutputs[0],
                          .dafter = doutputs[1],
                          .doverlap = gradients.of(0),
                          .dsums = gradients.of(1),
                          .dinitial = gradients.of(2)});
      });
  return {.before = outputs[0], .after = outputs[1]};
}

void check_part(const GroupPart& part, const Shape& state, int index, const ScanBorders& borders) {
  const auto [groups, numbers] = part.all.dims<2>();
  check(part.begin >= 0 && part.begin + state.size() <= numbers, "group_scan: a state ", state,
        " from number ", part.begin, " on, groups have ", numbers);
  check(index >= 0 && index < groups, "group_scan: group ", index, " of ", groups);
  check(!borders.resets || borders.resets.shape() == Shape{state[0], groups},
        "group_scan: resets are ", borders.resets.shape(), ", expected [", state[0], ", ", groups,
        "]");
  check(borders.detach.empty() || static_cast<std::int64_t>(borders.detach.size()) == groups,
        "group_scan: ", borders.detach.size(), " detach marks for ", groups, " groups");
}

}  // namespace

Scan group_scan(const GroupPart& sums, const Shape& state, const Tensor& initial, int index,
                const ScanBorders& borders) {
  check_part(sums, state, index, borders);
  check(!initial || initial.shape() == state, "group_scan: the initial state is ", initial.shape(),
        ", expected ", state);
  const Tensor before = Tensor::empty(state, sums.all.dtype(), sums.all.device());
  const Tensor after = Tensor::empty_like(before);
  on<cpu_scan, cuda_scan>(before.device())
      .group_scan({.sums = sums,
                   .index = index,
                   .initial = initial,
                   .resets = borders.resets,
                   .before = before,
                   .after = after});
  return {.before = before, .after = after};
}

void group_scan_grad(const GroupPart& dbefore, const Shape& state, const Tensor& dafter, int index,
                     const ScanBorders& borders, const GradTarget& dsums,
                     const GradTarget& dinitial) {
  check_part(dbefore, state, index, borders);
  on<cpu_scan, cuda_scan>(dbefore.all.device())
      .group_scan_grad({.dbefore = dbefore,
                        .state = state,
                        .index = index,
                        .resets = borders.resets,
                        .detach = borders.detach,
                        .dafter = dafter,
                        .dsums = dsums,
                        .dinitial = dinitial});
}

Scan scan(const Tensor& sums, const Tensor& initial, const ScanBorders& borders) {
  return run({}, sums, initial, borders);
}

Scan affine_scan(const Tensor& overlap, const Tensor& sums, const Tensor& initial,
                 const ScanBorders& borders) {
  check(overlap.shape() == sums.shape() && overlap.shape().rank() == 5, "affine_scan: overlap is ",
        overlap.shape(), ", sums are ", sums.shape(), ", expected [B, S, Hk, K, K]");
  return run(overlap, sums, initial, borders);
}

}  // namespace infini
