#include "tensor/ops/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/product.h"
#include "tensor/ops/scalar_math.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

// One row: logits [N] -> its negative log-likelihood; where wanted, dlogits = factor (softmax - one
// hot).
template <class T, class A>
A row_loss(A* logits, std::int64_t count, std::int32_t target, A factor, T* dlogits) {
  A highest = logits[0];
#pragma omp simd reduction(max : highest)
  for (std::int64_t n = 0; n < count; ++n) highest = logits[n] > highest ? logits[n] : highest;
  const A chosen = logits[target];
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t n = 0; n < count; ++n) {
    logits[n] = fast_exp(logits[n] - highest);
    sum += logits[n];
  }
  if (dlogits) {
    const A share = factor / sum, probability = logits[target];  // dlogits may be logits themselves
#pragma omp simd
    for (std::int64_t n = 0; n < count; ++n) dlogits[n] = T(logits[n] * share);
    dlogits[target] = T(probability * share - factor);
  }
  return highest - chosen + std::log(sum);
}

// What all processes found of row r: sums [P, 3, rows].
template <class A>
struct WholeRow {
  A highest, sum, chosen = 0;

  WholeRow(const A* sums, std::int64_t processes, std::int64_t rows, std::int64_t r) {
    const auto part = [=](std::int64_t p, int which) { return sums[(3 * p + which) * rows + r]; };
    highest = part(0, 0);
    for (std::int64_t p = 1; p < processes; ++p) highest = std::max(highest, part(p, 0));
    sum = 0;
    for (std::int64_t p = 0; p < processes; ++p) {
      sum += part(p, 1) * std::exp(part(p, 0) - highest);
      chosen += part(p, 2);
    }
  }
};

class CpuCrossEntropy final : public CrossEntropyKernels {
 public:
  void chunk(const Chunk& args) const override {
    const DType type = args.dlogits ? args.dlogits.dtype() : args.logits.dtype();
    dispatch_float(type, [&]<class T>() { each_row<T>(args); });
  }

  void chunk_sums(const ChunkSums& args) const override {
    dispatch_accumulator(args.logits.dtype(), [&]<class A>() {
      const auto [rows, count] = args.logits.dims<2>();
      const std::int32_t* const targets = args.targets.data<std::int32_t>();
      A* const sums = args.sums.data<A>();
      parallel_for(rows, [&, rows = rows, count = count](std::int64_t r) {
        const A* const logits = args.logits.data<A>() + r * count;
        A highest = logits[0];
#pragma omp simd reduction(max : highest)
        for (std::int64_t n = 0; n < count; ++n)
          highest = logits[n] > highest ? logits[n] : highest;
        A sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t n = 0; n < count; ++n) sum += fast_exp(logits[n] - highest);
        const std::int64_t target = targets[r] - args.first;
        const bool here = targets[r] >= 0 && target >= 0 && target < count;
        sums[r] = highest;
        sums[rows + r] = sum;
        sums[2 * rows + r] = here ? logits[target] : A(0);
      });
    });
  }

  void chunk_rest(const ChunkRest& args) const override {
    const Chunk& chunk = args.chunk;
    const DType type = chunk.dlogits ? chunk.dlogits.dtype() : chunk.logits.dtype();
    dispatch_float(type, [&]<class T>() { each_part<T>(args); });
  }

  void loss(const Tensor& nll, const Tensor& weights, double scale,
            const Tensor& loss) const override {
    double total = 0;
    const std::vector<double> each = nll.to_vector<double>();
    for (std::size_t r = 0; r < each.size(); ++r)
      total += each[r] * (weights ? weights.data<float>()[r] : 1.0f);
    loss.copy_from(Tensor::of(std::vector<double>{total * scale}, {}).to(loss.dtype()));
  }

 private:
  template <class T>
  static void each_part(const ChunkRest& args) {
    using A = Accumulator<T>;
    const Chunk& chunk = args.chunk;
    const auto [rows, count] = chunk.logits.dims<2>();
    const std::int32_t* const targets = chunk.targets.data<std::int32_t>();
    const float* const weights = chunk.weights ? chunk.weights.data<float>() : nullptr;
    const A* const sums = args.sums.data<A>();
    A* const nll = chunk.nll.data<A>();
    parallel_for(rows, [&, rows = rows, count = count](std::int64_t r) {
      T* const drow = chunk.dlogits ? chunk.dlogits.data<T>() + r * count : nullptr;
      if (targets[r] < 0) {
        nll[r] = 0;
        if (drow) std::fill_n(drow, count, T(0.0f));
        return;
      }
      const WholeRow<A> whole(sums, args.sums.shape()[0], rows, r);
      nll[r] = whole.highest - whole.chosen + std::log(whole.sum);
      if (!drow) return;
      const A factor = static_cast<A>(chunk.scale * (weights ? weights[r] : 1.0f));
      const A share = factor / whole.sum;
      const A* const logits = chunk.logits.data<A>() + r * count;
      const std::int64_t target = targets[r] - args.first;
      const bool here = target >= 0 && target < count;
      const A chosen = here ? logits[target] : A(0);  // dlogits may be the logits themselves
#pragma omp simd
      for (std::int64_t n = 0; n < count; ++n)
        drow[n] = T(fast_exp(logits[n] - whole.highest) * share);
      if (here) drow[target] = T(fast_exp(chosen - whole.highest) * share - factor);
    });
  }

  template <class T>
  static void each_row(const Chunk& args) {
    using A = Accumulator<T>;
    const auto [rows, count] = args.logits.dims<2>();
    const std::int32_t* const targets = args.targets.data<std::int32_t>();
    const float* const weights = args.weights ? args.weights.data<float>() : nullptr;
    A* const nll = args.nll.data<A>();
    parallel_for(rows, [&, count = count](std::int64_t r) {
      T* drow = args.dlogits ? args.dlogits.data<T>() + r * count : nullptr;
      if (targets[r] < 0) {
        nll[r] = 0;
        if (drow) std::fill_n(drow, count, T(0.0f));
        return;
      }
      const A factor = static_cast<A>(args.scale * (weights ? weights[r] : 1.0f));
      nll[r] = row_loss(args.logits.data<A>() + r * count, count, targets[r], factor, drow);
    });
  }
};

const CpuCrossEntropy cpu_cross_entropy;

void check_targets(const Tensor& targets, std::int64_t vocabulary) {
  if (targets.device() != Device::kCpu) return;
  const std::int32_t* const target = targets.data<std::int32_t>();
  for (std::int64_t r = 0; r < targets.size(); ++r)
    check(target[r] >= -1 && target[r] < vocabulary, "cross_entropy: target ", target[r],
          " in a vocabulary of ", vocabulary);
}

}  // namespace

std::int64_t logit_rows(std::int64_t rows, std::int64_t vocabulary, Device device) {
  constexpr std::int64_t kCpuLogits = 2 << 20, kGpuLogits = 512 << 20, kTile = 256;
  if (device == Device::kCpu)
    return std::clamp(kCpuLogits / vocabulary, std::int64_t{16}, std::max(rows, std::int64_t{16}));
  const std::int64_t chunks = (rows * vocabulary + kGpuLogits - 1) / kGpuLogits;
  const std::int64_t even =
      (rows + std::max<std::int64_t>(chunks, 1) - 1) / std::max<std::int64_t>(chunks, 1);
  return std::max((even + kTile - 1) / kTile * kTile, kTile);
}

CrossEntropy cross_entropy(const Tensor& x, const Tensor& weight, const Tensor& targets,
                           const Tensor& weights, double scale, const TensorGroup* group) {
  const auto [rows, width] = x.dims<2>();
  const std::int64_t columns = weight.shape()[0];  // of the logits here
  check(weight.shape() == Shape{columns, width} && weight.dtype() == x.dtype(),
        "cross_entropy: weight is ", weight.dtype(), weight.shape(), ", x is ", x.dtype(),
        x.shape());
  check(targets.shape() == Shape{rows}, "cross_entropy: targets are ", targets.shape(),
        ", expected [", rows, "]");
  check(!weights || weights.shape() == Shape{rows}, "cross_entropy: weights are ", weights.shape(),
        ", expected [", rows, "]");
  check_targets(targets, group ? group->count() * columns : columns);

  const DType full = accumulator_of(x.dtype());
  const Tensor nll = Tensor::empty({rows}, full, x.device());
  const bool wanted = x.tape() || weight.tape();
  const Tensor dx = x.tape() ? Tensor::empty_like(x) : Tensor{};
  const GradTarget dweight = weight.tape() ? zeroed(weight.tape()->target(weight)) : GradTarget{};
  const CrossEntropyKernels& device = on<cpu_cross_entropy, cuda_cross_entropy>(x.device());
  // The gradient overwrites the logits where types agree. On a GPU they do in training: there a
  // pass over bf16 logits costs half of one over fp32.
  const DType type = wanted && x.device() == Device::kCuda ? x.dtype() : full;

  const auto lose = [&](const CrossEntropyKernels::Chunk& part) {
    if (!group) return device.chunk(part);
    const std::int64_t first = group->index() * columns, count = part.nll.size();
    const Tensor sums = Tensor::empty({3, count}, full, x.device());
    device.chunk_sums(
        {.logits = part.logits, .targets = part.targets, .first = first, .sums = sums});
    const Tensor all = group->gather(sums.reshape({3 * count}));
    device.chunk_rest(
        {.chunk = part, .first = first, .sums = all.reshape({group->count(), 3, count})});
  };
  const Tensor plain_x = x.unwatched(), plain_weight = weight.unwatched();
  const std::int64_t chunk = logit_rows(rows, columns, x.device());
  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t count = std::min(chunk, rows - begin);
    const Tensor part = plain_x.slice(begin, count);
    const Tensor logits = Tensor::empty({count, columns}, type, x.device());
    const Tensor dlogits = !wanted             ? Tensor{}
                           : type == x.dtype() ? logits
                                               : Tensor::empty({count, columns}, x.dtype());
    multiply({.a = part, .b = plain_weight, .c = logits, .transpose_b = true});
    lose({.logits = logits,
          .targets = targets.slice(begin, count),
          .weights = weights ? weights.slice(begin, count) : Tensor{},
          .scale = scale,
          .nll = nll.slice(begin, count),
          .dlogits = dlogits});
    if (dx) multiply({.a = dlogits, .b = plain_weight, .c = dx.slice(begin, count)});
    if (dx && group) group->sum(dx.slice(begin, count));
    if (dweight)
      multiply(
          {.a = dlogits, .b = part, .c = dweight.tensor, .transpose_a = true, .accumulate = true});
  }
  if (dx && group) group->wait();
  const Tensor loss = Tensor::empty({}, full, x.device());
  device.loss(nll, weights, scale, loss);

  const Tensor recorded =
      record(loss, {x, weight}, [dx](const Tensor& dloss, Gradients& gradients) {
        check(dloss.device() != Device::kCpu || dloss.item() == 1,
              "cross_entropy: the loss must be the root of the backward pass; its gradient is ",
              dloss.item(), ", expected 1");
        if (const GradTarget target_x = gradients.of(0)) add_into(target_x, dx);
      });
  return {.loss = recorded, .nll = nll};
}

}  // namespace infini
