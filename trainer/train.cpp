// infini train: one run from a YAML file to a trained model.
#include "trainer/commands.h"
#include "trainer/on_ranks.h"
#include "trainer/option_checks.h"
#include "trainer/run_config_file.h"
#include "trainer/run_training.h"

namespace infini {
namespace {

struct TrainOptions {
  std::string config;
  std::vector<std::string> overrides;
  bool resume = false;
  std::int64_t stop_after = 0;  // steps of this process; 0: to the end
};

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
      ->check(at_least(0));
  command->callback([options, &exit_code] {
    exit_code = on_ranks([&](const World& world) {
      return run_training(
          world,
          read_run_config(options->config, options->overrides,
                          options->resume ? ReadFor::kContinuing : ReadFor::kBeginning),
          {.start = options->resume ? RunStart::kCheckpoint : RunStart::kFreshDirectory,
           .stop_after = options->stop_after});
    });
  });
}

}  // namespace infini
