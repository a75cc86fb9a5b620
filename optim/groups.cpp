#include "optim/groups.h"

#include <algorithm>

namespace infini {
namespace {

// The first that matches; null: none does.
const GroupConfig* group_of(const std::vector<GroupConfig>& groups, std::string_view name) {
  const auto found = std::ranges::find_if(
      groups, [&](const GroupConfig& group) { return matches(group.pattern, name); });
  return found == groups.end() ? nullptr : &*found;
}

bool matches_any(const std::string& pattern, const std::vector<ParameterSpec>& specs) {
  return std::ranges::any_of(
      specs, [&](const ParameterSpec& spec) { return matches(pattern, spec.name); });
}

}  // namespace

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

Frozen frozen_by(const OptimConfig& config) {
  if (std::ranges::none_of(config.groups, &GroupConfig::frozen)) return {};
  return [groups = config.groups](const std::string& name) {
    const GroupConfig* const group = group_of(groups, name);
    return group && group->frozen;
  };
}

void check_frozen(const OptimConfig& config, const std::vector<ParameterSpec>& specs) {
  for (const GroupConfig& group : config.groups) {
    if (!group.frozen) continue;
    check<ConfigError>(matches_any(group.pattern, specs), "optim.groups.", group.pattern,
                       ".frozen = true, but no parameter of this model has such a name");
    const auto comes_first = [&](const ParameterSpec& spec) {
      return group_of(config.groups, spec.name) == &group;
    };
    check<ConfigError>(std::ranges::any_of(specs, comes_first), "optim.groups.", group.pattern,
                       ".frozen = true, but groups before it match all that it does; the first "
                       "pattern that matches counts");
  }
  const Frozen frozen = frozen_by(config);
  const auto trains = [&](const ParameterSpec& spec) { return !frozen || !frozen(spec.name); };
  check<ConfigError>(std::ranges::any_of(specs, trains),
                     "optim.groups freeze every parameter of this model, so that nothing trains");
}

std::vector<std::string> idle_patterns(const OptimConfig& config,
                                       const std::vector<ParameterSpec>& specs) {
  const auto is_default = [](const GroupConfig& group) {
    return std::ranges::any_of(OptimConfig{}.groups, [&](const GroupConfig& one) {
      return one.pattern == group.pattern;
    });
  };
  std::vector<std::string> idle;
  for (const GroupConfig& group : config.groups)
    if (!is_default(group) && !matches_any(group.pattern, specs)) idle.push_back(group.pattern);
  return idle;
}

UpdateSettings settings_of(const OptimConfig& config, const Parameter& parameter) {
  if (const GroupConfig* const group = group_of(config.groups, parameter.name))
    return {.learning_rate = group->learning_rate > 0 ? group->learning_rate : config.learning_rate,
            .weight_decay = group->weight_decay,
            .relative = group->relative};
  return {.learning_rate = config.learning_rate,
          .weight_decay = parameter.master.shape().rank() >= 2 ? config.weight_decay : 0,
          .relative = config.adafactor.relative};
}

}  // namespace infini
