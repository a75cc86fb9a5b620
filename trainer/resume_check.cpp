#include "trainer/resume_check.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <initializer_list>
#include <string>

#include "trainer/config_difference.h"

namespace infini {
namespace {

bool begins_with_any(const std::string& key, std::initializer_list<const char*> beginnings) {
  return std::ranges::any_of(beginnings,
                             [&](const char* beginning) { return key.starts_with(beginning); });
}

bool is_of_the_run(const std::string& key) {
  return key == "seed" || (begins_with_any(key, {"model.", "data."}) && key != "data.store");
}

// Others say where and how the same numbers are computed, or when something is saved or measured.
bool changes_steps(const std::string& key) {
  return begins_with_any(key, {"optim.", "train.compute", "train.gradient_horizon"});
}

}  // namespace

void check_same_run(const RunConfig& then, const RunConfig& now,
                    const std::filesystem::path& checkpoint) {
  for (const auto& [key, before, after] : config_differences(then, now)) {
    check<ConfigError>(!is_of_the_run(key), checkpoint.string(), ": ", key, " was ", before,
                       " when it was saved and is ", after,
                       " now; --resume goes on with the same run, whose configuration is its "
                       "config.yaml, and a new run with init_from may have another");
    if (changes_steps(key)) spdlog::info("from here on {} is {}, it was {}", key, after, before);
  }
}

}  // namespace infini
