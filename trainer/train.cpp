// infini train: one run from a YAML file to a trained model.
#include <spdlog/spdlog.h>

#include "data/passkey_source.h"
#include "distributed/world.h"
#include "trainer/commands.h"
#include "trainer/config_reader.h"
#include "trainer/config_writer.h"
#include "trainer/exit_codes.h"
#include "trainer/passkey_table.h"
#include "trainer/perplexity.h"
#include "trainer/reporter.h"
#include "trainer/signals.h"
#include "trainer/text_file.h"
#include "trainer/training.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

struct TrainOptions {
  std::string config;
  std::vector<std::string> overrides;
  bool resume = false;
  std::int64_t stop_after = 0;  // steps of this process; 0: to the end
};

// A directory that holds no run yet: the name itself, or name-2, name-3, ...
fs::path fresh_directory(const fs::path& name) {
  fs::path directory = name;
  for (int i = 2; fs::exists(directory / "metrics.jsonl"); ++i)
    directory = text(name.string(), "-", i);
  return directory;
}

struct RunData {
  std::shared_ptr<const TokenStore> store;  // for data.source store
  std::shared_ptr<const TokenStore>
      validation;                             // the same, when the run is measured while it trains
  std::unique_ptr<Tokenizer> passkey_tokens;  // for data.source passkey
  std::unique_ptr<BatchSource> source;
  const Tokenizer& tokenizer() const { return store ? store->tokenizer() : *passkey_tokens; }
};

RunData open_data(const RunConfig& config) {
  RunData data;
  if (config.data.source == DataKind::kStore) {
    data.store = open_store(config.data);
    if (config.evaluate.every > 0) {
      data.validation = open_store(config.data, "validation");
      data.validation->require_tokenizer(data.store->tokenizer(), data.store->path().string());
    }
  } else {
    data.passkey_tokens = passkey_tokenizer(config.data.passkey.tokens);
  }
  data.source =
      make_source(config.data, config.model.segment_tokens, static_cast<std::uint64_t>(config.seed),
                  config.train.steps, data.store);
  return data;
}

// Saves; a disk that is full costs this checkpoint, not the run.
bool save(Training& training, const fs::path& directory) {
  try {
    save_checkpoint(directory, training.steps_done(), training.contents(),
                    {.keep_last = training.config().checkpoint.keep});
    return true;
  } catch (const DeviceError& error) {
    spdlog::error(
        "THE CHECKPOINT OF STEP {} WAS NOT SAVED: {}; earlier checkpoints are intact and training "
        "goes on",
        training.steps_done(), error.what());
    return false;
  }
}

void evaluate_validation(Training& training, const TokenStore& store, Reporter& reporter) {
  const RunConfig& config = training.config();
  reporter.pause();
  const PerplexityReport report =
      measure_perplexity(training.model(), store,
                         {.segments_at_once = config.evaluate.segments_at_once,
                          .document_tokens = config.evaluate.document_tokens});
  spdlog::info("step {}: validation token perplexity {:.4f}", training.steps_done(),
               report.token_perplexity());
  reporter.record(training.steps_done(),
                  {{"validation_token_perplexity", report.token_perplexity()}});
}

void report_passkeys(Training& training, const RunData& data, const fs::path& directory) {
  const std::vector<PasskeyCell> cells =
      passkey_table(training.model(), data.tokenizer(), training.config());
  write_text(directory / "passkey.json", passkey_json(cells));
  fmt::print("{}", format_passkey_table(cells, training.config()));
}

int train(const TrainOptions& options) {
  const World world;
  world.require_single("train");
  RunConfig config = read_config_file<RunConfig>(options.config, options.overrides);
  const fs::path directory =
      options.resume ? fs::path(config.directory) : fresh_directory(config.directory);
  config.directory = directory.string();
  RunData data = open_data(config);
  Training training(config, std::move(data.source), data.tokenizer().serialise());
  if (options.resume) {
    const std::optional<Checkpoint> latest = find_latest(directory);
    check<ConfigError>(latest.has_value(), "--resume: ", directory.string(),
                       " holds no checkpoint");
    training.resume(*latest);
    spdlog::info("resuming {} at step {}", latest->directory().string(), training.steps_done());
  }
  std::error_code error;
  fs::create_directories(directory, error);
  check<ConfigError>(!error, "directory: cannot make ", directory.string(), ": ", error.message());
  write_text(directory / "config.yaml", config_yaml(training.config()));
  spdlog::info("{}", training.description());
  spdlog::info("{} parameters; writing to {}", training.model().parameters().count(),
               directory.string());

  const StopSignals signals;
  Reporter reporter(directory, training.steps_done(), config.train.steps);
  const auto due = [&](std::int64_t every) {
    return every > 0 && training.steps_done() % every == 0;
  };
  std::int64_t last_saved = options.resume ? training.steps_done() : -1;
  const std::int64_t end =
      options.stop_after > 0
          ? std::min(config.train.steps, training.steps_done() + options.stop_after)
          : config.train.steps;
  while (training.steps_done() < end) {
    reporter.go_on();
    reporter.step(training.step());
    if (data.validation && due(config.evaluate.every))
      evaluate_validation(training, *data.validation, reporter);
    if (stop_requested()) break;
    if (due(config.checkpoint.every) && save(training, directory))
      last_saved = training.steps_done();
  }
  reporter.pause();
  if (last_saved != training.steps_done() && !save(training, directory))
    throw DeviceError("the last checkpoint could not be saved");
  if (training.steps_done() < config.train.steps) {
    spdlog::info("stopped at step {} of {}; continue with --resume directory={}",
                 training.steps_done(), config.train.steps, directory.string());
    return kExitStopped;
  }
  if (config.data.source == DataKind::kPasskey) report_passkeys(training, data, directory);
  return kExitDone;
}

}  // namespace

void add_train(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<TrainOptions>();
  CLI::App* command = app.add_subcommand("train", "train a model from one YAML file");
  command->add_option("config", options->config, "the YAML file; all keys: infini inspect --keys")
      ->required();
  command->add_option("overrides", options->overrides,
                      "key=value on top of it, for example optim.learning_rate=0.01");
  command->add_flag("--resume", options->resume,
                    "continue the run in its directory from its newest checkpoint");
  command
      ->add_option("--stop-after", options->stop_after,
                   "save and stop after this many steps, with exit code 75")
      ->check(CLI::NonNegativeNumber);
  command->callback([options, &exit_code] { exit_code = train(*options); });
}

}  // namespace infini
