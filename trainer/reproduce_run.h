// One run of a table: a system trained on a corpus from a seed, then measured on the corpus's test
// split. All it leaves lies in its directory: what training leaves, result.json once it is measured
// and timings.json beside it.
#pragma once

#include <chrono>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "distributed/world.h"
#include "trainer/config_difference.h"

namespace infini {

class TableRun {
 public:
  explicit TableRun(RunConfig config) : config_(std::move(config)) {}

  const RunConfig& config() const { return config_; }

  enum class State {
    kAbsent,       // not begun, or ended before its first checkpoint
    kInterrupted,  // a checkpoint before the last step
    kTrained,      // a checkpoint of the last step
    kMeasured      // result.json
  };
  // Throws ConfigError where the directory holds a run of another configuration, naming a key that
  // differs, and where the corpus's splits are not there.
  State state() const;
  // Whether there is a result.json of this configuration. One of another is no error here.
  bool is_measured() const;

  // Trains to the last step, or until a step ends after `stop_at`. Returns kExitDone or
  // kExitStopped. All ranks call it.
  int train(const World& world, std::optional<std::chrono::steady_clock::time_point> stop_at) const;
  // Measures the trained model, memory as trained and off, and writes result.json. Ranks divide the
  // documents, each with the whole model.
  void measure(const World& world) const;

  // What measure() wrote.
  nlohmann::ordered_json result() const;
  nlohmann::ordered_json timings() const;

 private:
  std::filesystem::path directory() const { return config_.directory; }
  std::optional<ConfigDifference> difference(const std::filesystem::path& recorded,
                                             const std::string& yaml) const;
  void check_same(const std::filesystem::path& recorded, const std::string& yaml) const;

  RunConfig config_;
};

}  // namespace infini
