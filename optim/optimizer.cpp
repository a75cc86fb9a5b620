#include "optim/optimizer.h"

#include "optim/adafactor.h"
#include "optim/adamw.h"

namespace infini {

Tensor Optimizer::Slot::value_copy() const {
  return parameter.value.raw() == parameter.master.raw() ? Tensor() : parameter.value;
}

Tensor Optimizer::Slot::part(const std::string& name) const {
  for (const NamedTensor& part : parts)
    if (part.name == name) return part.tensor;
  return {};
}

void Optimizer::Slot::add_part(const std::string& name, const Shape& shape) {
  const Tensor& master = parameter.master;
  parts.push_back({name, Tensor::zeros(shape, master.dtype(), master.device())});
}

void Optimizer::Slot::add_state(std::vector<NamedTensor>& all) const {
  for (const NamedTensor& part : parts)
    all.push_back({"optimizer/" + parameter.name + "/" + part.name, part.tensor});
}

Optimizer::Optimizer(const OptimConfig& config, const Parameters& parameters)
    : device_(parameters.masters().device()) {
  config.validate();
  for (const Parameter& parameter : parameters.all())
    if (!parameter.frozen)
      slots_.push_back(
          {.parameter = parameter, .settings = settings_of(config, parameter), .parts = {}});
}

void Optimizer::step(double rate_factor, const Tensor& gradient_scale) {
  check(gradient_scale && gradient_scale.size() == 1 && gradient_scale.device() == device_ &&
            gradient_scale.dtype() == DType::kFloat64,
        "step: the gradient scale is not an f64 scalar on ", device_);
  if (!slots_.empty()) update(rate_factor, gradient_scale);
  ++steps_;
}

void Optimizer::step(double rate_factor, double gradient_scale) {
  step(rate_factor, Tensor::of(std::vector<double>{gradient_scale}, {}).to(device_));
}

void Optimizer::restore_steps(std::int64_t steps) {
  check(steps >= 0, "an optimizer after ", steps, " steps");
  steps_ = steps;
}

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<NamedTensor> all;
  for (const Slot& slot : slots_) slot.add_state(all);
  return all;
}

std::vector<NamedTensor> Optimizer::state_of(const std::string& parameter) const {
  std::vector<NamedTensor> found;
  for (const Slot& slot : slots_)
    if (slot.parameter.name == parameter) slot.add_state(found);
  return found;
}

std::unique_ptr<Optimizer> make_optimizer(const OptimConfig& config, const Parameters& parameters) {
  if (config.kind == OptimizerKind::kAdamW) return std::make_unique<AdamW>(config, parameters);
  return std::make_unique<Adafactor>(config, parameters);
}

}  // namespace infini
