// In which keys two configurations differ.
#pragma once

#include <string>
#include <vector>

#include "trainer/run_config.h"

namespace infini {

struct ConfigDifference {
  std::string key;  // dotted
  std::string left, right;
};

// In the order of the keys; empty when every key has the same value. Entries of lists have their
// number in the key; what one list lacks is written as "nothing".
std::vector<ConfigDifference> config_differences(const RunConfig& left, const RunConfig& right);

}  // namespace infini
