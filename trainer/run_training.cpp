#include "trainer/run_training.h"

#include <spdlog/spdlog.h>

#include "data/passkey_source.h"
#include "distributed/watchdog.h"
#include "tensor/allocator.h"
#include "trainer/config_writer.h"
#include "trainer/directory_lock.h"
#include "trainer/exit_codes.h"
#include "trainer/loaded_model.h"
#include "trainer/on_ranks.h"
#include "trainer/passkey_table.h"
#include "trainer/perplexity.h"
#include "trainer/reporter.h"
#include "trainer/signals.h"
#include "trainer/summary_loss.h"
#include "trainer/text_file.h"
#include "trainer/training.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

struct RunDirectory {
  fs::path path;
  std::optional<DirectoryLock> lock;  // the first rank's
};

// One that holds no run and no other process: the name itself, or name-2, name-3, ...
RunDirectory fresh_directory(const fs::path& name) {
  const auto holds_run = [](const fs::path& path) {
    return fs::exists(path / "metrics.jsonl") || fs::exists(path / "checkpoints");
  };
  fs::path directory = name;
  for (int i = 2;; directory = text(name.string(), "-", i++)) {
    if (holds_run(directory)) continue;
    std::optional<DirectoryLock> lock = DirectoryLock::try_take("directory", directory);
    if (lock && !holds_run(directory)) return {directory, std::move(lock)};
  }
}

struct RunData {
  std::shared_ptr<const TokenStore> store;  // for data.source store or examples
  std::shared_ptr<const TokenStore>
      validation;                             // the same, when the run is measured while it trains
  std::unique_ptr<Tokenizer> passkey_tokens;  // for data.source passkey
  std::unique_ptr<BatchSource> source;
  const Tokenizer& tokenizer() const { return store ? store->tokenizer() : *passkey_tokens; }
};

RunData open_data(const RunConfig& config) {
  RunData data;
  if (config.data.source != DataKind::kPasskey) {
    data.store = open_store(config.data);
    if (config.evaluate.every > 0) {
      data.validation = open_store(config.data, "validation");
      data.validation->require_tokenizer(data.store->tokenizer(), data.store->path().string());
    }
  } else {
    data.passkey_tokens = passkey_tokenizer(config.data.passkey);
    check_passkey_table(*data.passkey_tokens, config);
  }
  data.source = make_source(config.data, config.model.segment_tokens,
                            static_cast<std::uint64_t>(config.seed), config.train.steps, data.store,
                            std::max(config.parallel.segment, config.parallel.segment_leaves));
  return data;
}

// Saves; a disk that is full costs this checkpoint, not the run.
bool save(Training& training, const fs::path& directory) {
  try {
    const Communicator& all = training.layout().all;
    save_checkpoint(directory, training.steps_done(), training.contents(),
                    {.rank = all.rank(),
                     .ranks = all.size(),
                     .keep_last = training.config().checkpoint.keep,
                     .all_agree = [&](bool mine) { return all.all_agree(mine); }});
    return true;
  } catch (const DeviceError& error) {
    spdlog::error(
        "THE CHECKPOINT OF STEP {} WAS NOT SAVED: {}; earlier checkpoints are intact and training "
        "goes on",
        training.steps_done(), error.what());
    return false;
  }
}

// Ranks divide the documents where each can read by itself, or with those alone that share its
// blocks; the first reports.
void evaluate_validation(Training& training, const std::shared_ptr<const TokenStore>& store,
                         Reporter* reporter) {
  const RunConfig& config = training.config();
  if (reporter) reporter->pause();
  const auto record = [&](const char* key, const char* words, double perplexity) {
    spdlog::info("step {}: validation {} perplexity {:.4f}", training.steps_done(), words,
                 perplexity);
    if (reporter) reporter->record(training.steps_done(), {{key, perplexity}});
  };
  const PerplexityOptions options = perplexity_options(config.evaluate);
  if (config.data.source == DataKind::kExamples)
    record("validation_summary_perplexity", "summary",
           measure_summaries(training.model(),
                             ExampleRows(ExampleStore::of(store), config.data.examples), options,
                             training.independent_ranks())
               .all()
               .perplexity());
  else
    record("validation_token_perplexity", "token",
           measure_perplexity(training.model(), *store, options, training.independent_ranks())
               .token_perplexity());
}

void report_passkeys(Training& training, const RunData& data, const fs::path& directory) {
  const std::vector<PasskeyCell> cells =
      passkey_table(training.model(), data.tokenizer(), training.config());
  if (!training.layout().is_first()) return;
  write_text(directory / "passkey.json", passkey_json(cells));
  fmt::print("{}", format_passkey_table(cells, training.config()));
}

// That of the run, as the first rank finds it.
RunDirectory run_directory(const RunRequest& request, const RunConfig& config,
                           const Layout& layout) {
  fs::path name = config.directory;
  if (!name.has_filename()) name = name.parent_path();  // ends with a slash
  if (!layout.is_first()) return {.path = layout.all.from_first(""), .lock = {}};
  RunDirectory directory =
      request.start == RunStart::kFreshDirectory
          ? fresh_directory(name)
          : RunDirectory{.path = name, .lock = DirectoryLock::take("directory", name)};
  layout.all.from_first(directory.path.string());
  return directory;
}

// Whether there was a checkpoint to go on from.
bool resume(Training& training, const RunRequest& request, const fs::path& directory) {
  if (request.start == RunStart::kFreshDirectory) return false;
  const Communicator& all = training.layout().all;
  const std::optional<Checkpoint> latest = find_latest(directory, all.rank(), all.size());
  check<ConfigError>(latest.has_value() || request.start == RunStart::kWhereItStands,
                     "--resume: ", directory.string(), " holds no checkpoint",
                     training.config().init_from.empty()
                         ? ""
                         : "; without --resume a new run begins with the values of init_from");
  all.all_agree(true);  // every file was looked at
  if (!latest) return false;
  training.resume(*latest);
  spdlog::info("resuming {} at step {}", latest->directory().string(), training.steps_done());
  return true;
}

// A new run's values, where it does not begin with random ones.
void begin_from(Training& training) {
  const std::string& from = training.config().init_from;
  if (from.empty()) return;
  const Communicator& all = training.layout().all;
  const Checkpoint checkpoint(checkpoint_directory(from), all.rank(), all.size());
  all.all_agree(true);  // every file was looked at
  training.begin_from(checkpoint);
  spdlog::info("beginning with the values of {}", checkpoint.directory().string());
}

// A new run beside the one that it begins with: in its place nobody would know which is which.
void check_init_from(const RunConfig& config, const RunRequest& request) {
  if (config.init_from.empty() || request.start != RunStart::kFreshDirectory) return;
  const fs::path from = fs::weakly_canonical(checkpoint_directory(config.init_from)),
                 own = fs::weakly_canonical(config.directory);
  check<ConfigError>(from.parent_path().parent_path() != own, "init_from: ", config.init_from,
                     " is in the run's own directory; --resume continues that run, and a new one "
                     "needs another directory");
}

std::string parameters_text(const RunConfig& config) {
  std::int64_t trained = 0, frozen = 0;
  for (const ParameterSpec& spec : parameter_specs(config.model, 1, 0, frozen_by(config.optim)))
    (spec.frozen ? frozen : trained) += spec.shape.size();
  if (frozen == 0) return text(trained, " parameters");
  return text(trained + frozen, " parameters, of which ", trained, " train and ", frozen,
              " are frozen,");
}

void begin_directory(const Training& training, const fs::path& directory) {
  write_text(directory / "config.yaml", config_yaml(training.config()));
}

// Takes steps until the run is done or somebody asks any rank to stop.
int run_steps(Training& training, const RunData& data, const RunRequest& request,
              const fs::path& directory, bool resumed) {
  const RunConfig& config = training.config();
  const Communicator& all = training.layout().all;
  const StopSignals signals;
  std::optional<Reporter> first_reports;
  if (all.is_first()) first_reports.emplace(directory, training.steps_done(), config.train.steps);
  Reporter* const reporter = first_reports ? &*first_reports : nullptr;
  const auto due = [&](std::int64_t every) {
    return every > 0 && training.steps_done() % every == 0;
  };
  std::int64_t last_saved = resumed ? training.steps_done() : -1;
  const std::int64_t end =
      request.stop_after > 0
          ? std::min(config.train.steps, training.steps_done() + request.stop_after)
          : config.train.steps;
  const auto may_go_on = [&] {
    return !stop_requested() &&
           !(request.stop_at && std::chrono::steady_clock::now() >= *request.stop_at);
  };
  while (training.steps_done() < end) {
    if (reporter) reporter->go_on();
    const StepReport report = training.step();
    if (reporter) reporter->step(report);
    if (data.validation && due(config.evaluate.every))
      evaluate_validation(training, data.validation, reporter);
    if (!all.all_agree(may_go_on())) break;
    if (due(config.checkpoint.every) && save(training, directory))
      last_saved = training.steps_done();
  }
  if (reporter) reporter->pause();
  if (last_saved != training.steps_done() && !save(training, directory))
    throw DeviceError("the last checkpoint could not be saved");
  if (training.steps_done() < config.train.steps) {
    spdlog::info("stopped at step {} of {}; continue with infini train {} --resume",
                 training.steps_done(), config.train.steps, (directory / "config.yaml").string());
    return kExitStopped;
  }
  if (config.data.source == DataKind::kPasskey) report_passkeys(training, data, directory);
  return kExitDone;
}

}  // namespace

int run_training(const World& world, RunConfig config, const RunRequest& request) {
  check_init_from(config, request);
  const Layout layout = make_layout(Communicator(world), config.parallel);
  const Watchdog watchdog(world, layout.all, config.parallel);
  const RunDirectory held = run_directory(request, config, layout);
  const fs::path& directory = held.path;
  config.directory = directory.string();
  const Device device = device_of(config.device);
  if (device == Device::kCuda) choose_gpu(world);
  reset_peak(device);
  RunData data = open_data(config);
  Training training(config, std::move(data.source), data.tokenizer().serialise(), layout);
  const bool resumed = resume(training, request, directory);
  if (!resumed) begin_from(training);
  if (layout.is_first()) begin_directory(training, directory);
  spdlog::info("{}", training.description());
  spdlog::info("{} on {}; writing to {}", parameters_text(training.config()),
               layout.all.size() == 1 ? "one rank" : text(layout.all.size(), " ranks"),
               directory.string());
  for (const std::string& pattern :
       idle_patterns(training.config().optim, parameter_specs(training.config().model)))
    spdlog::warn("optim.groups.{}: no parameter of this model has such a name", pattern);
  return run_steps(training, data, request, directory, resumed);
}

}  // namespace infini
