#include "optim/groups.h"

namespace infini {

bool matches(std::string_view pattern, std::string_view name) {
  // The text a star stands for starts empty and grows by one where the rest does not fit; only the
  // last star needs to grow, because any earlier one has already found the nearest fit.
  constexpr std::size_t kNone = std::string_view::npos;
  std::size_t p = 0, n = 0, star = kNone, star_end = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_end = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p, ++n;
    } else if (star != kNone) {
      p = star + 1;
      n = ++star_end;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == kNone;
}

UpdateSettings settings_of(const OptimConfig& config, const Parameter& parameter) {
  for (const GroupConfig& group : config.groups)
    if (matches(group.pattern, parameter.name))
      return {.learning_rate = group.learning_rate > 0 ? group.learning_rate : config.learning_rate,
              .weight_decay = group.weight_decay,
              .relative = group.relative};
  return {.learning_rate = config.learning_rate,
          .weight_decay = parameter.master.shape().rank() >= 2 ? config.weight_decay : 0,
          .relative = config.adafactor.relative};
}

}  // namespace infini
