// The `optim` block of a run's configuration.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/error.h"

namespace infini {

enum class OptimizerKind { kAdafactor, kAdamW };
constexpr std::array<std::pair<std::string_view, OptimizerKind>, 2> enum_names(OptimizerKind) {
  return {{{"adafactor", OptimizerKind::kAdafactor}, {"adamw", OptimizerKind::kAdamW}}};
}

enum class Schedule { kCosine, kInverseSqrt, kConstant };
constexpr std::array<std::pair<std::string_view, Schedule>, 3> enum_names(Schedule) {
  return {{{"cosine", Schedule::kCosine},
           {"inverse_sqrt", Schedule::kInverseSqrt},
           {"constant", Schedule::kConstant}}};
}

struct AdamWConfig {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;

  template <class Visitor>
  void visit(Visitor& field) {
    field("beta1", beta1, "how much of the mean gradient a step keeps");
    field("beta2", beta2, "how much of the mean squared gradient a step keeps");
    field("epsilon", epsilon, "added to the root of the mean square; damps tiny gradients");
  }
  void validate() const;
};

struct AdafactorConfig {
  bool relative = true;
  double momentum = 0.9;
  double decay_exponent = 0.8;
  double clip_threshold = 1;
  double min_scale = 1e-3;
  double epsilon_squared = 1e-30;
  std::int64_t factored_from = 128;

  template <class Visitor>
  void visit(Visitor& field) {
    field("relative", relative,
          "learning rates are relative to the root mean square of each parameter");
    field("momentum", momentum, "how much of the mean update a step keeps; 0: no mean, no memory");
    field("decay_exponent", decay_exponent,
          "step t keeps 1 - t^-decay_exponent of the mean squared gradient");
    field("clip_threshold", clip_threshold,
          "updates whose root mean square is above this are scaled down to it");
    field("min_scale", min_scale,
          "the least root mean square a relative rate assumes; moves parameters that start at 0");
    field("epsilon_squared", epsilon_squared, "added to squared gradients");
    field("factored_from", factored_from,
          "matrices with both sides at least this long keep means of rows and columns only");
  }
  void validate() const;
};

// Parameters that are updated in their own way, or not at all.
struct GroupConfig {
  std::string pattern;
  double learning_rate = 0;
  double weight_decay = 0;
  bool relative = false;
  bool frozen = false;

  template <class Visitor>
  void visit(Visitor& field) {
    field("pattern", pattern, "names of parameters, * standing for any text: *.attention.gate");
    field("learning_rate", learning_rate, "peak rate of the group; 0: optim.learning_rate");
    field("weight_decay", weight_decay, "decay of the group, vectors included");
    field("relative", relative, "as adafactor.relative, for the group");
    field("frozen", frozen,
          "the group stays as it is, without gradients and optimizer state in memory");
  }
  void validate() const;
};

struct OptimConfig {
  OptimizerKind kind = OptimizerKind::kAdafactor;
  double learning_rate = 0.01;
  Schedule schedule = Schedule::kCosine;
  std::int64_t warmup_steps = 1000;
  double final_fraction = 0.1;
  double weight_decay = 0;
  double clip_norm = 1;
  AdamWConfig adamw;
  AdafactorConfig adafactor;
  // A gate is one number per head: a rate relative to its size could not move it from 0, and decay
  // would pull it back to an even mixture.
  std::vector<GroupConfig> groups = {{.pattern = "*.attention.gate", .learning_rate = 0.01}};

  template <class Visitor>
  void visit(Visitor& field) {
    field("kind", kind, "rule that turns gradients into updates");
    field("learning_rate", learning_rate,
          "peak rate; around 0.01 for a relative adafactor, 3e-4 for adamw");
    field("schedule", schedule, "how the rate falls after warm-up");
    field("warmup_steps", warmup_steps, "steps over which the rate rises linearly to its peak");
    field("final_fraction", final_fraction, "share of the peak that cosine ends with");
    field("weight_decay", weight_decay,
          "share of every matrix, times the rate, taken off in each step");
    field("clip_norm", clip_norm,
          "gradients whose norm is above this are scaled down to it; 0: never");
    field("adamw", adamw, "settings of adamw");
    field("adafactor", adafactor, "settings of adafactor");
    field("groups", groups,
          "parameters with rules of their own; the first pattern that matches counts");
  }
  void validate() const;
};

}  // namespace infini
