#include "optim/adamw.h"

#include <cmath>

#include "tensor/ops/elementwise.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

template <class T>
void update_elements(const AdamWKernels::Step& rule, const AdamWKernels::Update& args,
                     double gradient_scale) {
  const T* const gradient = args.gradient.data<T>();
  T* const x = args.parameter.data<T>();
  T* const mean = args.mean.data<T>();
  T* const square = args.square.data<T>();
  const T scale(gradient_scale), beta1(rule.beta1), beta2(rule.beta2), epsilon(rule.epsilon);
  const T new1(1 - rule.beta1), new2(1 - rule.beta2);
  const T correction1(rule.mean_correction), correction2(rule.square_correction);
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
  void update(const Step& step) const override {
    const double scale = step.gradient_scale.item();
    if (!std::isfinite(scale)) return;
    for (const Update& update : step.updates)
      dispatch_accumulator(update.parameter.dtype(), [&]<class T>() {
        update_elements<T>(step, update, scale);
        if (update.value) convert_into(update.value, update.parameter);
      });
  }
};

const CpuAdamW cpu_adamw;

}  // namespace

AdamW::AdamW(const OptimConfig& config, const Parameters& parameters, const Owns& owns)
    : Optimizer(config, parameters, owns), config_(config.adamw) {}

std::vector<StatePart> AdamW::parts_of(const Shape& parameter, const Division& division) {
  return {{"mean", parameter, division}, {"square", parameter, division}};
}

void AdamW::update(double rate_factor, const Tensor& gradient_scale) const {
  std::vector<AdamWKernels::Update> updates;
  for (const Slot& slot : slots_)
    updates.push_back({.parameter = slot.parameter.master,
                       .gradient = slot.parameter.gradient,
                       .mean = slot.part("mean"),
                       .square = slot.part("square"),
                       .value = slot.value_copy(),
                       .learning_rate = rate_factor * slot.settings.learning_rate,
                       .weight_decay = slot.settings.weight_decay});
  const auto step = static_cast<double>(steps() + 1);
  on<cpu_adamw, cuda_adamw>(device_).update(
      {.updates = updates,
       .gradient_scale = gradient_scale,
       .beta1 = config_.beta1,
       .beta2 = config_.beta2,
       .epsilon = config_.epsilon,
       .mean_correction = 1 / (1 - std::pow(config_.beta1, step)),
       .square_correction = 1 / (1 - std::pow(config_.beta2, step))});
}

}  // namespace infini
