#include "optim/config.h"

#include <cmath>

namespace infini {
namespace {

void check_finite(std::string_view key, double value) {
  check<ConfigError>(std::isfinite(value), "optim.", key, " must be finite, got ", value);
}

void check_positive(std::string_view key, double value) {
  check_finite(key, value);
  check<ConfigError>(value > 0, "optim.", key, " must be positive, got ", value);
}

void check_not_negative(std::string_view key, double value) {
  check_finite(key, value);
  check<ConfigError>(value >= 0, "optim.", key, " must not be negative, got ", value);
}

void check_share(std::string_view key, double value) {
  check<ConfigError>(value >= 0 && value <= 1, "optim.", key, " must be in 0..1, got ", value);
}

// A share that is kept from step to step: 1 would never let anything in.
void check_kept(std::string_view key, double value) {
  check<ConfigError>(value >= 0 && value < 1, "optim.", key,
                     " must be at least 0 and below 1, got ", value);
}

}  // namespace

void AdamWConfig::validate() const {
  check_kept("adamw.beta1", beta1);
  check_kept("adamw.beta2", beta2);
  check_positive("adamw.epsilon", epsilon);
}

void AdafactorConfig::validate() const {
  check_kept("adafactor.momentum", momentum);
  check_positive("adafactor.decay_exponent", decay_exponent);
  check_positive("adafactor.clip_threshold", clip_threshold);
  check_positive("adafactor.min_scale", min_scale);
  check_positive("adafactor.epsilon_squared", epsilon_squared);
  check<ConfigError>(factored_from >= 1, "optim.adafactor.factored_from must be at least 1, got ",
                     factored_from);
}

void GroupConfig::validate() const {
  check<ConfigError>(!pattern.empty(), "optim.groups: a group without a pattern");
  check_not_negative("groups." + pattern + ".learning_rate", learning_rate);
  check_not_negative("groups." + pattern + ".weight_decay", weight_decay);
  const auto says_nothing = [&](std::string_view key, bool given) {
    check<ConfigError>(!frozen || !given, "optim.groups.", pattern, ".", key,
                       " says nothing beside frozen = true, which never updates the group");
  };
  says_nothing("learning_rate", learning_rate > 0);
  says_nothing("weight_decay", weight_decay > 0);
  says_nothing("relative", relative);
}

void OptimConfig::validate() const {
  check_positive("learning_rate", learning_rate);
  check<ConfigError>(warmup_steps >= 0, "optim.warmup_steps must not be negative, got ",
                     warmup_steps);
  check_share("final_fraction", final_fraction);
  check_not_negative("weight_decay", weight_decay);
  check_not_negative("clip_norm", clip_norm);
  adamw.validate();
  adafactor.validate();
  for (const GroupConfig& group : groups) group.validate();
}

}  // namespace infini
