// Turns gradients into updates of parameters.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "optim/groups.h"
#include "tensor/tensor_group.h"

namespace infini {

struct NamedTensor {
  std::string name;
  Tensor tensor;
  Division division{};  // as of a parameter
};

// Whether this process updates a parameter; an empty function says so of all.
using Owns = std::function<bool(const Parameter&)>;

// What an optimizer keeps for one parameter, in the type of its master.
struct StatePart {
  std::string name;
  Shape shape;
  Division division{};
};
std::vector<StatePart> state_parts(const OptimConfig& config, const Shape& parameter,
                                   const Division& division = {});

// Updates the masters and values of parameters that are its own and not frozen when it is made. The
// result does not depend on the number of threads. Of parameters that a group divides each process
// updates its part, with what the rule measures over the whole: step() is then a call of all.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // One step at `rate_factor` times every peak rate (schedule.h), as if each gradient had been
  // multiplied by gradient_scale, an fp64 scalar on the device of the parameters (clip.h). Where it
  // is not finite, no parameter and no state changes; the step is counted all the same, and
  // restore_steps() takes that back once the scale is known. Leaves gradients as they are.
  void step(double rate_factor, const Tensor& gradient_scale);
  void step(double rate_factor, double gradient_scale = 1);

  // Steps taken so far. With state(), all that the next step depends on beside parameters and
  // gradients: to continue a run, fill the tensors of state() and restore the steps.
  std::int64_t steps() const { return steps_; }
  void restore_steps(std::int64_t steps);
  // The elements themselves, named optimizer/<parameter>/<part>, always in the same order.
  std::vector<NamedTensor> state() const;
  std::vector<NamedTensor> state_of(const std::string& parameter) const;
  // The names that the state of parameters which others own has there.
  const std::vector<std::string>& state_elsewhere() const { return state_elsewhere_; }

 protected:
  // What is kept for one parameter. A part that a rule does not need is empty.
  struct Slot {
    Parameter parameter;
    UpdateSettings settings;
    std::vector<NamedTensor> parts;

    // The compute copy of the master, or an empty tensor where they share elements.
    Tensor value_copy() const;
    // The part called `name`, or an empty tensor.
    Tensor part(const std::string& name) const;
    // Adds its parts by their full names.
    void add_state(std::vector<NamedTensor>& all) const;
  };

  Optimizer(const OptimConfig& config, const Parameters& parameters, const Owns& owns);
  std::vector<Slot> slots_;
  Device device_;  // of all parameters

 private:
  std::vector<std::string> state_elsewhere_;

  // Updates every slot; steps() does not count this step yet.
  virtual void update(double rate_factor, const Tensor& gradient_scale) const = 0;

  std::int64_t steps_ = 0;
};

// `group`: those that have the other parts of parameters; null: there are no parts.
std::unique_ptr<Optimizer> make_optimizer(const OptimConfig& config, const Parameters& parameters,
                                          const Owns& owns = {},
                                          const TensorGroup* group = nullptr);

}  // namespace infini
