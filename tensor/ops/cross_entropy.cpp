#include "tensor/ops/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/product.h"
#include "tensor/ops/scalar_math.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

constexpr std::int64_t kChunkLogits = 2 << 20;  // numbers alive at a time

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

template <class T>
void chunk_loss(const Tensor& logits, const Tensor& dlogits, const std::int32_t* targets,
                const float* weights, double scale, Accumulator<T>* nll) {
  using A = Accumulator<T>;
  const auto [rows, count] = logits.dims<2>();
  parallel_for(rows, [&, count = count](std::int64_t r) {
    T* drow = dlogits ? dlogits.data<T>() + r * count : nullptr;
    if (targets[r] < 0) {
      nll[r] = 0;
      if (drow) std::fill_n(drow, count, T(0.0f));
      return;
    }
    const A factor = static_cast<A>(scale * (weights ? weights[r] : 1.0f));
    nll[r] = row_loss(logits.data<A>() + r * count, count, targets[r], factor, drow);
  });
}

}  // namespace

CrossEntropy cross_entropy(const Tensor& x, const Tensor& weight, const Tensor& targets,
                           const Tensor& weights, double scale) {
  check<DeviceError>(x.device() == Device::kCpu, "cross_entropy: this build has no kernels for ",
                     x.device());
  const auto [rows, width] = x.dims<2>();
  const std::int64_t vocabulary = weight.shape()[0];
  check(weight.shape() == Shape{vocabulary, width} && weight.dtype() == x.dtype(),
        "cross_entropy: weight is ", weight.dtype(), weight.shape(), ", x is ", x.dtype(),
        x.shape());
  check(targets.shape() == Shape{rows}, "cross_entropy: targets are ", targets.shape(),
        ", expected [", rows, "]");
  check(!weights || weights.shape() == Shape{rows}, "cross_entropy: weights are ", weights.shape(),
        ", expected [", rows, "]");
  const std::int32_t* target = targets.data<std::int32_t>();
  for (std::int64_t r = 0; r < rows; ++r)
    check(target[r] >= -1 && target[r] < vocabulary, "cross_entropy: target ", target[r],
          " in a vocabulary of ", vocabulary);

  const DType full = accumulator_of(x.dtype());
  const Tensor nll = Tensor::empty({rows}, full);
  const bool wanted = x.tape() || weight.tape();
  const Tensor dx = x.tape() ? Tensor::empty_like(x) : Tensor{};
  const GradTarget dweight = weight.tape() ? zeroed(weight.tape()->target(weight)) : GradTarget{};

  const Tensor plain_x = x.unwatched(), plain_weight = weight.unwatched();
  const std::int64_t chunk =
      std::clamp(kChunkLogits / vocabulary, std::int64_t{16}, std::max(rows, std::int64_t{16}));
  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t count = std::min(chunk, rows - begin);
    const Tensor part = plain_x.slice(begin, count);
    const Tensor logits = Tensor::empty({count, vocabulary}, full);
    // In fp32 and fp64 the gradient overwrites the logits; in bf16 it is a tensor of its own.
    const Tensor dlogits = !wanted             ? Tensor{}
                           : full == x.dtype() ? logits
                                               : Tensor::empty({count, vocabulary}, x.dtype());
    multiply({.a = part, .b = plain_weight, .c = logits, .transpose_b = true});
    dispatch_float(x.dtype(), [&]<class T>() {
      chunk_loss<T>(logits, dlogits, target + begin,
                    weights ? weights.data<float>() + begin : nullptr, scale,
                    nll.data<Accumulator<T>>() + begin);
    });
    if (dx) multiply({.a = dlogits, .b = plain_weight, .c = dx.slice(begin, count)});
    if (dweight)
      multiply(
          {.a = dlogits, .b = part, .c = dweight.tensor, .transpose_a = true, .accumulate = true});
  }

  double total = 0;
  const std::vector<double> each = nll.to_vector<double>();
  for (std::int64_t r = 0; r < rows; ++r)
    total += each[r] * (weights ? weights.data<float>()[r] : 1.0f);
  const Tensor loss = Tensor::of(std::vector<double>{total * scale}, {}).to(full);

  const Tensor recorded =
      record(loss, {x, weight}, [dx](const Tensor& dloss, Gradients& gradients) {
        check(dloss.item() == 1,
              "cross_entropy: the loss must be the root of the backward pass; its gradient is ",
              dloss.item(), ", expected 1");
        if (const GradTarget target_x = gradients.of(0)) add_into(target_x, dx);
      });
  return {.loss = recorded, .nll = nll};
}

}  // namespace infini
