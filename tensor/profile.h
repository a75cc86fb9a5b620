// Where the time of a GPU goes: whoever starts work there leaves a mark after it, and the time
// between two marks belongs to the work between them. So the parts add up to the whole.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace infini {

struct ProfileEntry {
  std::string name;
  std::int64_t count = 0;
  double seconds = 0;          // of all together
  double least = 0, most = 0;  // seconds of one
};

// From here on marks count. Profiles do not nest.
void begin_profile();
bool is_profiling();
// After work has been asked of the device. Costs nothing while nobody profiles.
void mark_work(const std::string& name);
// Waits for the device; entries by time, most first.
std::vector<ProfileEntry> end_profile();

}  // namespace infini
