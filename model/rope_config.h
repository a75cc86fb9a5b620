// How a model slows its rotary angles down: RotaryScaling as keys of a configuration.
#pragma once

#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "tensor/ops/rotary.h"

namespace infini {

constexpr std::array<std::pair<std::string_view, RotaryScaling::Kind>, 3> enum_names(
    RotaryScaling::Kind) {
  return {{{"none", RotaryScaling::Kind::kNone},
           {"linear", RotaryScaling::Kind::kLinear},
           {"llama3", RotaryScaling::Kind::kLlama3}}};
}

struct RopeScalingConfig {
  RotaryScaling::Kind kind = RotaryScaling::Kind::kNone;
  double factor = 1;
  double slow_turns = 1;
  double fast_turns = 4;
  std::int64_t original_tokens = 8192;

  template <class Visitor>
  void visit(Visitor& field) {
    field("kind", kind,
          "none; linear: every rotary angle is divided by factor; llama3: slow angles are, fast "
          "ones are not");
    field("factor", factor, "what angles are divided by");
    field("slow_turns", slow_turns,
          "of llama3: angles with fewer turns in original_tokens are divided by the whole factor");
    field("fast_turns", fast_turns, "of llama3: angles with more turns stay as they are");
    field("original_tokens", original_tokens,
          "of llama3: the context in which turns are counted, that of the first training");
  }
  void validate() const {
    check<ConfigError>(factor > 0 && std::isfinite(factor),
                       "model.rope_scaling.factor must be positive and finite, got ", factor);
    check<ConfigError>(std::isfinite(fast_turns),
                       "model.rope_scaling.fast_turns must be finite, got ", fast_turns);
    check<ConfigError>(slow_turns < fast_turns,
                       "model.rope_scaling.slow_turns must be below fast_turns = ", fast_turns,
                       ", got ", slow_turns);
    check<ConfigError>(original_tokens >= 1,
                       "model.rope_scaling.original_tokens must be at least 1, got ",
                       original_tokens);
  }

  RotaryScaling scaling() const {
    return {.kind = kind,
            .factor = factor,
            .slow_turns = slow_turns,
            .fast_turns = fast_turns,
            .original_tokens = original_tokens};
  }
};

}  // namespace infini
