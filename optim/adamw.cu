#include <cmath>

#include "optim/adamw.h"
#include "optim/table.cuh"

namespace infini {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kPiece = 4096;  // elements per block

template <class T>
struct Entry {
  T* x;
  const T* gradient;
  T* mean;
  T* square;
  __nv_bfloat16* value;
  std::int64_t size;
  T rate, decay;
  unsigned first_block;
  bool packed;  // all pointers and the size allow accesses of kPackSize elements
};

template <class T>
struct Rule {
  const double* gradient_scale;
  T beta1, beta2, new1, new2, epsilon, correction1, correction2;
};

// Elements [i, i + n) of a parameter.
template <int n, class T>
__device__ __forceinline__ void update_pack(const Entry<T>& entry, const Rule<T>& rule, T scale,
                                            std::int64_t i) {
  T gradient[n], x[n], mean[n], square[n];
  stream_in(entry.gradient + i, gradient);
  stream_in(entry.x + i, x);
  stream_in(entry.mean + i, mean);
  stream_in(entry.square + i, square);
#pragma unroll
  for (int k = 0; k < n; ++k) {
    const T g = scale * gradient[k];
    const T m = mean[k] = rule.beta1 * mean[k] + rule.new1 * g;
    const T v = square[k] = rule.beta2 * square[k] + rule.new2 * g * g;
    const T step =
        entry.rate * (rule.correction1 * m) / (sqrt(rule.correction2 * v) + rule.epsilon);
    x[k] -= step + entry.decay * x[k];
  }
  stream_out(entry.x + i, x);
  stream_out(entry.mean + i, mean);
  stream_out(entry.square + i, square);
  if (entry.value) store_value(entry.value + i, x);
}

// One block per kPiece elements of a parameter, one pack of 16 bytes per thread at a time.
template <class T>
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(const __grid_constant__ Table<Entry<T>> table,
                 const __grid_constant__ Rule<T> rule) {
  const double gradient_scale = *rule.gradient_scale;
  if (!isfinite(gradient_scale)) return;
  const T scale = static_cast<T>(gradient_scale);

  const Entry<T>& entry = table.entries[entry_of_block(table, &Entry<T>::first_block)];
  const std::int64_t begin = kPiece * (blockIdx.x - entry.first_block);
  const std::int64_t end = min(entry.size, begin + kPiece);
  if (entry.packed) {
    constexpr int n = kPackSize<T>;
    for (std::int64_t i = begin + n * threadIdx.x; i < end; i += n * kThreads)
      update_pack<n>(entry, rule, scale, i);
  } else {
    for (std::int64_t i = begin + threadIdx.x; i < end; i += kThreads)
      update_pack<1>(entry, rule, scale, i);
  }
}

template <class T>
Entry<T> entry_of(const AdamWKernels::Update& update, std::int64_t first_block) {
  constexpr int n = kPackSize<T>;
  Entry<T> entry{.x = update.parameter.data<T>(),
                 .gradient = update.gradient.data<T>(),
                 .mean = update.mean.data<T>(),
                 .square = update.square.data<T>(),
                 .value = native<BFloat16>(update.value),
                 .size = update.parameter.size(),
                 .rate = static_cast<T>(update.learning_rate),
                 .decay = static_cast<T>(update.learning_rate * update.weight_decay),
                 .first_block = static_cast<unsigned>(first_block),
                 .packed = false};
  entry.packed = entry.size % n == 0 && holds_packs<n>(entry.x) && holds_packs<n>(entry.gradient) &&
                 holds_packs<n>(entry.mean) && holds_packs<n>(entry.square) &&
                 holds_packs<n>(entry.value);
  return entry;
}

template <class T>
void launch(const AdamWKernels::Step& step, std::span<const AdamWKernels::Update> updates) {
  const Rule<T> rule{.gradient_scale = step.gradient_scale.data<double>(),
                     .beta1 = static_cast<T>(step.beta1),
                     .beta2 = static_cast<T>(step.beta2),
                     .new1 = static_cast<T>(1 - step.beta1),
                     .new2 = static_cast<T>(1 - step.beta2),
                     .epsilon = static_cast<T>(step.epsilon),
                     .correction1 = static_cast<T>(step.mean_correction),
                     .correction2 = static_cast<T>(step.square_correction)};
  Table<Entry<T>> table;
  std::int64_t blocks = 0;
  for (const AdamWKernels::Update& update : updates) {
    if (update.parameter.size() == 0) continue;
    table.entries[table.count++] = entry_of<T>(update, blocks);
    blocks += blocks_for(update.parameter.size(), kPiece);
  }
  if (blocks == 0) return;
  adamw_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, cuda_stream()>>>(table, rule);
  check_launch("adamw");
}

class CudaAdamW final : public AdamWKernels {
 public:
  void update(const Step& step) const override {
    dispatch_accumulator(step.updates.front().parameter.dtype(), [&]<class T>() {
      for_each_table<Entry<T>>(step.updates, [&](auto updates) { launch<T>(step, updates); });
    });
  }
};

}  // namespace

const AdamWKernels& cuda_adamw() {
  static const CudaAdamW kernels;
  return kernels;
}

}  // namespace infini
