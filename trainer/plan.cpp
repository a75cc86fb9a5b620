// infini plan: memory, traffic and time of a run's steps on any number of GPUs, without one.
#include "trainer/plan.h"

#include <algorithm>
#include <iostream>
#include <memory>

#include "distributed/world.h"
#include "trainer/commands.h"
#include "trainer/config_reader.h"
#include "trainer/exit_codes.h"
#include "trainer/option_checks.h"
#include "trainer/run_config_file.h"

namespace infini {
namespace {

std::int64_t bytes_of_gibibytes(double gibibytes) {
  return static_cast<std::int64_t>(gibibytes * (1 << 30));
}

struct PlanOptions {
  std::string config, figures;
  std::vector<std::string> overrides;
  int ranks = 0, gpus_per_node = 8;
  bool json = false;
};

int run(const PlanOptions& options) {
  World().require_single("plan");
  const CardFigures figures =
      options.figures.empty() ? CardFigures{} : read_config_file<CardFigures>(options.figures);
  const Plan plan =
      make_plan(read_run_config(options.config, options.overrides, ReadFor::kPlanning),
                options.ranks, options.gpus_per_node, figures);
  std::cout << (options.json ? plan_json(plan) : plan_text(plan));
  return kExitDone;
}

}  // namespace

std::int64_t Plan::context_bytes() const { return bytes_of_gibibytes(figures.context_gibibytes); }
std::int64_t Plan::card_bytes() const { return bytes_of_gibibytes(figures.memory_gibibytes); }

double Plan::tokens_per_second() const {
  return time ? static_cast<double>(rank.step_tokens()) / time->total() : 0;
}

double Plan::days() const {
  return time ? time->total() * static_cast<double>(rank.config.train.steps) / 86400 : 0;
}

Plan make_plan(const RunConfig& config, int ranks, int gpus_per_node, const CardFigures& figures) {
  const ParallelConfig& parallel = config.parallel;
  if (ranks == 0) ranks = std::max(1, parallel.data) * parallel.segment * parallel.tensor;
  check<ConfigError>(gpus_per_node >= 1, "--gpus-per-node must be at least 1, got ", gpus_per_node);
  check<ConfigError>(ranks <= gpus_per_node || ranks % gpus_per_node == 0, ranks,
                     " ranks do not fill nodes of --gpus-per-node ", gpus_per_node);
  Plan plan{.rank = planned_rank(config, ranks),
            .gpus_per_node = gpus_per_node,
            .figures = figures,
            .step = {},
            .traffic = {},
            .time = {}};
  plan.step = planned_step(plan.rank, Device::kCuda);
  plan.traffic = planned_traffic(plan.rank, plan.step, gpus_per_node, figures);
  // How long the others' attention takes was not measured.
  const bool is_measured =
      config.model.architecture == Architecture::kInfini || config.model.has_memory_tokens();
  if (config.train.compute == Compute::kBf16 && is_measured)
    plan.time = step_time(plan.rank, plan.step, plan.traffic, figures);
  return plan;
}

void add_plan(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<PlanOptions>();
  CLI::App* command = app.add_subcommand(
      "plan", "memory, traffic and time of a run's steps on any number of GPUs, without one");
  command->add_option("config", options->config, "the run, a YAML file")->required();
  command->add_option("overrides", options->overrides, "key=value on top of it");
  command
      ->add_option("--ranks", options->ranks,
                   "GPUs; without it, what the axes of parallel multiply to")
      ->check(at_least(1));
  command->add_option("--gpus-per-node", options->gpus_per_node, "GPUs that NVLink joins")
      ->capture_default_str()
      ->check(at_least(1));
  command->add_option("--figures", options->figures,
                      "a YAML file of what a card reaches, as experiments/performance/h200.yaml");
  command->add_flag("--json", options->json, "for machines: bytes and seconds");
  command->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace infini
