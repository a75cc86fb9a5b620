// One run of a table: a system trained on a corpus from a seed, then measured as the table's kind
// asks. All it leaves lies in its directory: what training leaves, result.json once it is measured
// and timings.json beside it.
#pragma once

#include <chrono>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "distributed/world.h"
#include "trainer/config_difference.h"
#include "trainer/reproduce_config.h"

namespace infini {

class TableRun {
 public:
  // The table must outlive the run.
  TableRun(const TableConfig& table, const CorpusConfig& corpus, RunConfig config)
      : table_(&table), examples_(corpus.examples), config_(std::move(config)) {}

  const RunConfig& config() const { return config_; }

  enum class State {
    kAbsent,       // not begun, or ended before its first checkpoint
    kInterrupted,  // a checkpoint before the last step
    kTrained,      // a checkpoint of the last step
    kMeasured      // result.json with all that the table asks for
  };
  // Throws ConfigError where the directory holds a run of another configuration, naming a key that
  // differs, and where the corpus's splits are not there.
  State state() const;
  // Whether there is such a result.json of this configuration. One of another is no error here.
  bool is_measured() const;

  // Trains to the last step, or until a step ends after `stop_at`. Returns kExitDone or
  // kExitStopped. All ranks call it.
  int train(const World& world, std::optional<std::chrono::steady_clock::time_point> stop_at) const;
  // Measures the trained model, memory as trained and off, and writes result.json. Ranks divide the
  // documents or prompts, each with the whole model. Between two pieces of the work it asks whether
  // to `go_on`, and returns false where not; the next call has only the rest to do.
  bool measure(const World& world, const std::function<bool()>& go_on) const;

  // What measure() wrote.
  nlohmann::ordered_json result() const;
  nlohmann::ordered_json timings() const;

 private:
  std::filesystem::path directory() const { return config_.directory; }
  std::vector<std::filesystem::path> stores() const;  // that it trains and is measured on
  // What they hold: hashes of their text and tokenizer.
  nlohmann::ordered_json data_hashes() const;
  bool is_of_this_data(const nlohmann::ordered_json& result) const;
  std::optional<ConfigDifference> difference(const std::filesystem::path& recorded,
                                             const std::string& yaml) const;
  void check_same(const std::filesystem::path& recorded, const std::string& yaml) const;

  const TableConfig* table_;
  std::string examples_;
  RunConfig config_;
};

}  // namespace infini
