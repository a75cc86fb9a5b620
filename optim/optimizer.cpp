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
    all.push_back({state_name(parameter.name, part.name), part.tensor, part.division});
}

Optimizer::Optimizer(const OptimConfig& config, const Parameters& parameters, const Owns& owns)
    : device_(parameters.masters().device()) {
  config.validate();
  for (const Parameter& parameter : parameters.all()) {
    if (parameter.frozen) continue;
    const std::vector<StatePart> parts =
        state_parts(config, parameter.master.shape(), parameter.division);
    if (owns && !owns(parameter)) {
      for (const StatePart& part : parts)
        state_elsewhere_.push_back(state_name(parameter.name, part.name));
      continue;
    }
    Slot& slot = slots_.emplace_back();
    slot.parameter = parameter;
    slot.settings = settings_of(config, parameter);
    for (const StatePart& part : parts)
      slot.parts.push_back(
          {part.name, Tensor::zeros(part.shape, parameter.master.dtype(), device_), part.division});
  }
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

std::vector<StatePart> state_parts(const OptimConfig& config, const Shape& parameter,
                                   const Division& division) {
  return config.kind == OptimizerKind::kAdamW
             ? AdamW::parts_of(parameter, division)
             : Adafactor::parts_of(config.adafactor, parameter, division);
}

std::unique_ptr<Optimizer> make_optimizer(const OptimConfig& config, const Parameters& parameters,
                                          const Owns& owns, const TensorGroup* group) {
  if (config.kind == OptimizerKind::kAdamW)
    return std::make_unique<AdamW>(config, parameters, owns);
  return std::make_unique<Adafactor>(config, parameters, owns, group);
}

}  // namespace infini
