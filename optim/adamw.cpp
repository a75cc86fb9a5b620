#include "optim/adamw.h"

#include <cmath>

#include "tensor/parallel.h"

namespace infini {
namespace {

template <class T>
void update_elements(const AdamWKernels::Update& args) {
  const T* const gradient = args.gradient.data<T>();
  T* const x = args.parameter.data<T>();
  T* const mean = args.mean.data<T>();
  T* const square = args.square.data<T>();
  const T scale(args.gradient_scale), beta1(args.beta1), beta2(args.beta2), epsilon(args.epsilon);
  const T new1(1 - args.beta1), new2(1 - args.beta2);
  const T correction1(args.mean_correction), correction2(args.square_correction);
  const T rate(args.learning_rate), decay(args.learning_rate * args.weight_decay);

  parallel_ranges(args.parameter.size(), kElementGrain, [=](std::int64_t begin, std::int64_t end) {
#pragma GCC ivdep
    for (std::int64_t i = begin; i < end; ++i) {
      const T g = scale * gradient[i];
      const T m = beta1 * mean[i] + new1 * g;
      const T v = beta2 * square[i] + new2 * g * g;
      mean[i] = m;
      square[i] = v;
      const T step = rate * (correction1 * m) / (std::sqrt(correction2 * v) + epsilon);
      x[i] -= step + decay * x[i];
    }
  });
}

class CpuAdamW final : public AdamWKernels {
 public:
  void update(const Update& args) const override {
    if (args.parameter.dtype() == DType::kFloat64)
      update_elements<double>(args);
    else
      update_elements<float>(args);
  }
};

const CpuAdamW cpu_adamw;

}  // namespace

AdamW::AdamW(const OptimConfig& config, Parameters& parameters)
    : Optimizer(config, parameters), config_(config.adamw) {
  for (Slot& slot : slots_) {
    slot.add_part("mean", slot.parameter.master.shape());
    slot.add_part("square", slot.parameter.master.shape());
  }
}

void AdamW::update(const Slot& slot, double learning_rate, double gradient_scale) const {
  const auto step = static_cast<double>(steps() + 1);
  on<cpu_adamw, cuda_adamw>(slot.parameter.master.device())
      .update({.parameter = slot.parameter.master,
               .gradient = slot.parameter.gradient,
               .mean = slot.part("mean"),
               .square = slot.part("square"),
               .gradient_scale = gradient_scale,
               .learning_rate = learning_rate,
               .weight_decay = slot.settings.weight_decay,
               .beta1 = config_.beta1,
               .beta2 = config_.beta2,
               .epsilon = config_.epsilon,
               .mean_correction = 1 / (1 - std::pow(config_.beta1, step)),
               .square_correction = 1 / (1 - std::pow(config_.beta2, step))});
}

}  // namespace infini
