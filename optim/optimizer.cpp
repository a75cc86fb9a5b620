#include "optim/optimizer.h"

#include "optim/adafactor.h"
#include "optim/adamw.h"

namespace infini {
namespace {

std::string state_name(const std::string& parameter, const std::string& part) {
  return "optimizer/" + parameter + "/" + part;
}

}  // namespace

Tensor Optimizer::Slot::value_copy() const {
  return parameter.value.raw() == parameter.master.raw() ? Tensor() : parameter.value;
}

Tensor Optimizer::Slot::part(const std::string& name) const {
  for (const NamedTensor& part : parts)
    if (part.name == name) return part.tensor;
  return {};
}

void Optimizer::Slot::add_state(std::vector<NamedTensor>& all) const {
  for (const NamedTensor& part : parts)
    all.push_back({state_name(parameter.name, part.name), part.tensor});
}

Optimizer::Optimizer(const OptimConfig& config, const Parameters& parameters, const Owns& owns)
    : device_(parameters.masters().device()) {
  config.validate();
  for (const Parameter& parameter : parameters.all())
    if (!parameter.frozen)
      (!owns || owns(parameter) ? slots_ : others_)
          .push_back(
              {.parameter = parameter, .settings = settings_of(config, parameter), .parts = {}});
}

void Optimizer::add_parts(const std::function<std::vector<Part>(const Shape&)>& parts_of) {
  for (Slot& slot : slots_) {
    const Tensor& master = slot.parameter.master;
    for (const Part& part : parts_of(master.shape()))
      slot.parts.push_back({part.name, Tensor::zeros(part.shape, master.dtype(), master.device())});
  }
  for (const Slot& slot : others_)
    for (const Part& part : parts_of(slot.parameter.master.shape()))
      state_elsewhere_.push_back(state_name(slot.parameter.name, part.name));
  others_.clear();
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

std::unique_ptr<Optimizer> make_optimizer(const OptimConfig& config, const Parameters& parameters,
                                          const Owns& owns) {
  if (config.kind == OptimizerKind::kAdamW)
    return std::make_unique<AdamW>(config, parameters, owns);
  return std::make_unique<Adafactor>(config, parameters, owns);
}

}  // namespace infini
