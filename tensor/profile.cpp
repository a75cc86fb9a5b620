#include "tensor/profile.h"

#include <algorithm>
#include <map>

#include "tensor/error.h"

#ifdef INFINI_CUDA
#include "tensor/cuda.h"
#endif

namespace infini {

#ifdef INFINI_CUDA

namespace {

// Events are kept and used again: making one takes longer than recording it.
struct Profiler {
  bool running = false;
  std::vector<cudaEvent_t> events;
  std::vector<std::string> names;  // of the work that ends at events[i + 1]

  void record() {
    if (names.size() >= events.size()) {
      events.push_back(nullptr);
      cuda_check(cudaEventCreate(&events.back()), "cudaEventCreate");
    }
    cuda_check(cudaEventRecord(events[names.size()], cuda_stream()), "cudaEventRecord");
  }
};

Profiler& profiler() {
  static Profiler& made = *new Profiler;
  return made;
}

}  // namespace

bool is_profiling() { return profiler().running; }

void begin_profile() {
  Profiler& at = profiler();
  check(!at.running, "begin_profile: a profile is running already");
  at.names.clear();
  at.record();
  at.running = true;
}

void mark_work(const std::string& name) {
  Profiler& at = profiler();
  if (!at.running) return;
  at.names.push_back(name);
  at.record();
}

std::vector<ProfileEntry> end_profile() {
  Profiler& at = profiler();
  at.running = false;
  cuda_check(cudaStreamSynchronize(cuda_stream()), "work on the GPU");
  std::map<std::string, ProfileEntry> by_name;
  for (std::size_t i = 0; i < at.names.size(); ++i) {
    float milliseconds = 0;
    cuda_check(cudaEventElapsedTime(&milliseconds, at.events[i], at.events[i + 1]),
               "cudaEventElapsedTime");
    ProfileEntry& entry = by_name[at.names[i]];
    entry.name = at.names[i];
    const double seconds = milliseconds / 1e3;
    entry.least = entry.count == 0 ? seconds : std::min(entry.least, seconds);
    entry.most = std::max(entry.most, seconds);
    entry.seconds += seconds;
    ++entry.count;
  }
  std::vector<ProfileEntry> entries;
  for (const auto& [name, entry] : by_name) entries.push_back(entry);
  std::ranges::stable_sort(entries, std::ranges::greater{}, &ProfileEntry::seconds);
  return entries;
}

#else

bool is_profiling() { return false; }
void begin_profile() { throw DeviceError("a profile needs a GPU; this build has none"); }
void mark_work(const std::string&) {}
std::vector<ProfileEntry> end_profile() { return {}; }

#endif

}  // namespace infini
