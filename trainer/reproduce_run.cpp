#include "trainer/reproduce_run.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/durable_file.h"
#include "data/seconds_since.h"
#include "distributed/watchdog.h"
#include "model/memory_size.h"
#include "trainer/checkpoint.h"
#include "trainer/config_difference.h"
#include "trainer/config_reader.h"
#include "trainer/config_writer.h"
#include "trainer/loaded_model.h"
#include "trainer/on_ranks.h"
#include "trainer/perplexity.h"
#include "trainer/reproduce_cells.h"
#include "trainer/reproduce_results.h"
#include "trainer/run_training.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kResult = "result.json";
constexpr const char* kTimings = "timings.json";
constexpr const char* kLog = "metrics.jsonl";
constexpr const char* kTestStore = "test.h5";

// The learned gates before the sigmoid, a list of heads for each layer that has them.
Json gates_of(const InfiniTransformer& model) {
  Json layers = Json::array();
  for (const Parameter& parameter : model.parameters().all())
    if (is_gate(parameter.name)) layers.push_back(parameter.master.to_vector<double>());
  return layers;
}

// Perplexities of the test split, memory as trained and, where there is one, off.
Json test_perplexities(const LoadedModel& loaded, const fs::path& test, const Communicator& all) {
  const auto store = TokenStore::open(test);
  store->require_tokenizer(*loaded.tokenizer, loaded.checkpoint.string());
  const auto measured = [&](bool memory) {
    loaded.model->use_memory(memory);
    const PerplexityReport report =
        measure_perplexity(*loaded.model, *store, perplexity_options(loaded.config.evaluate), all);
    spdlog::info("{}: test token perplexity {:.4f}{}", loaded.config.directory,
                 report.token_perplexity(), memory ? "" : ", memory off");
    return Json::parse(perplexity_json(report));
  };
  Json result{{"test", measured(true)}};
  if (memory_numbers(loaded.config.model) > 0) result["memory_off"] = measured(false);
  return result;
}

// The lines of a run's log that are of steps.
std::vector<Json> steps_of_log(const fs::path& log) {
  std::vector<Json> steps;
  std::ifstream file(log);
  for (std::string line; std::getline(file, line);) {
    Json step = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (step.is_object() && step.contains("tokens_per_second")) steps.push_back(std::move(step));
  }
  check<DataError>(!steps.empty(), log.string(), ": holds no step");
  return steps;
}

// Of all rows of all steps, padding too.
std::int64_t tokens_of(const std::vector<Json>& steps) {
  double tokens = 0;
  for (const Json& step : steps)
    tokens +=
        std::round(step.at("tokens_per_second").get<double>() * step.at("seconds").get<double>());
  return static_cast<std::int64_t>(tokens);
}

// What the steps cost. The median: the first steps also choose algorithms.
Json training_timings(const std::vector<Json>& steps) {
  std::vector<double> rates;
  double seconds = 0, peak_bytes = 0;
  for (const Json& step : steps) {
    rates.push_back(step.at("tokens_per_second"));
    seconds += step.at("seconds").get<double>();
    peak_bytes = std::max(peak_bytes, step.at("peak_bytes").get<double>());
  }
  std::ranges::sort(rates);
  return {{"tokens_per_second", rates[rates.size() / 2]},
          {"training_seconds", seconds},
          {"peak_bytes", static_cast<std::int64_t>(peak_bytes)}};
}

}  // namespace

std::optional<ConfigDifference> TableRun::difference(const fs::path& recorded,
                                                     const std::string& yaml) const {
  const RunConfig there = read_config_text<RunConfig>(yaml, recorded.string());
  RunConfig here = config_;
  if (here.model.vocabulary == 0) here.model.vocabulary = there.model.vocabulary;
  const auto place = [](const RunConfig& config) {  // of the run it began with, seen from its own
    return fs::path(config.init_from).lexically_relative(config.directory);
  };
  if (place(here) == place(there)) here.init_from = there.init_from;
  here.directory = there.directory;  // may have been moved
  const std::vector<ConfigDifference> all = config_differences(there, here);
  return all.empty() ? std::nullopt : std::optional(all.front());
}

void TableRun::check_same(const fs::path& recorded, const std::string& yaml) const {
  const std::optional<ConfigDifference> found = difference(recorded, yaml);
  if (!found) return;
  throw ConfigError(text(recorded.string(), " is of a run with ", found->key, " = ", found->left,
                         ", the table now says ", found->right,
                         "; give another --output, or remove ", directory().string()));
}

bool TableRun::is_measured() const {
  const fs::path file = directory() / kResult;
  if (!fs::exists(file)) return false;
  const Json there = result();
  return !difference(file, there.at("config").get<std::string>()) && is_of_this_data(there) &&
         has_cells(there, *table_);
}

std::vector<fs::path> TableRun::stores() const {
  std::vector<fs::path> stores;
  if (config_.data.source != DataKind::kPasskey)
    stores.push_back(fs::path(config_.data.store) / "train.h5");
  if (table_->kind == TableKind::kPerplexity)
    stores.push_back(fs::path(config_.data.store) / kTestStore);
  if (table_->kind == TableKind::kSummaries) stores.push_back(fs::path(examples_) / kTestStore);
  return stores;
}

Json TableRun::data_hashes() const {
  Json hashes = Json::object();
  for (const fs::path& file : stores()) hashes[file.string()] = store_identity(file);
  return hashes;
}

// Of stores that are not there any more nothing is known.
bool TableRun::is_of_this_data(const Json& result) const {
  const std::vector<fs::path> files = stores();
  if (!std::ranges::all_of(files, [](const fs::path& file) { return fs::exists(file); }))
    return true;
  return result.at("data") == data_hashes();
}

TableRun::State TableRun::state() const {
  const fs::path result_file = directory() / kResult, config_file = directory() / "config.yaml";
  if (fs::exists(result_file)) {
    const Json there = result();
    check_same(result_file, there.at("config").get<std::string>());
    check<ConfigError>(is_of_this_data(there), result_file.string(), " is of other data than ",
                       config_.data.store, " holds now; give another --output, or remove ",
                       directory().string());
    if (has_cells(there, *table_)) return State::kMeasured;
  }
  if (fs::exists(config_file)) check_same(config_file, read_file(config_file));
  for (const fs::path& store : stores())
    check<ConfigError>(fs::exists(store), store.string(),
                       " does not exist; `infini prepare` makes it from a corpus");
  const std::vector<CheckpointPath> checkpoints = list_checkpoints(directory());
  if (checkpoints.empty()) return State::kAbsent;
  return checkpoints.back().step < config_.train.steps ? State::kInterrupted : State::kTrained;
}

int TableRun::train(const World& world,
                    std::optional<std::chrono::steady_clock::time_point> stop_at) const {
  return run_training(world, config_, {.start = RunStart::kWhereItStands, .stop_at = stop_at});
}

bool TableRun::measure(const World& world, const std::function<bool()>& go_on) const {
  const Communicator all(world);
  const Watchdog watchdog(world, all, config_.parallel);
  if (device_of(config_.device) == Device::kCuda) choose_gpu(world);
  const LoadedModel loaded = load_model(directory());
  check<DataError>(loaded.tokenizer != nullptr, loaded.checkpoint.string(), " holds no tokenizer");

  const auto begin = std::chrono::steady_clock::now();
  Json perplexities = Json::object();
  if (table_->kind == TableKind::kPerplexity)
    perplexities = test_perplexities(loaded, fs::path(config_.data.store) / kTestStore, all);
  else if (!measure_cells(loaded, *table_, examples_, directory(), all, go_on))
    return false;
  const double seconds = seconds_since(begin);
  all.all_agree(true);  // every rank has looked at what stands in the directory
  if (!all.is_first()) return true;

  const std::vector<Json> steps = steps_of_log(directory() / kLog);
  const ModelConfig& model = loaded.config.model;
  Json result{{"config", config_yaml(loaded.config)},
              {"step", loaded.step},
              {"training_tokens", tokens_of(steps)},
              {"parameters", parameter_count(model)},
              {"memory_numbers", memory_numbers(model)}};
  result.update(perplexities);
  Json timings = training_timings(steps);
  timings["measuring_seconds"] = seconds;
  if (table_->kind != TableKind::kPerplexity) add_cells(directory(), *table_, result, timings);
  if (const Json gates = gates_of(*loaded.model); !gates.empty()) result["gates"] = gates;
  write_file(directory() / kTimings, timings.dump(2) + "\n");
  result["data"] = data_hashes();
  write_file(directory() / kResult, sealed_text(result));
  return true;
}

nlohmann::ordered_json TableRun::result() const { return read_sealed(directory() / kResult); }
nlohmann::ordered_json TableRun::timings() const { return read_json(directory() / kTimings); }

}  // namespace infini
