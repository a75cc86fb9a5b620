// infini bench: what this machine can do, and how near a training step comes. JSON lines.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "data/seconds_since.h"
#include "distributed/watchdog.h"
#include "model/flops.h"
#include "tensor/ops/product.h"
#include "tensor/parallel.h"
#include "tensor/profile.h"
#include "trainer/bench_generation.h"
#include "trainer/bench_kernels.h"
#include "trainer/commands.h"
#include "trainer/config_reader.h"
#include "trainer/exit_codes.h"
#include "trainer/on_ranks.h"
#include "trainer/option_checks.h"
#include "trainer/run_config_file.h"
#include "trainer/text_file.h"
#include "trainer/training.h"

namespace infini {
namespace {

struct BenchOptions {
  std::string config;
  std::vector<std::string> overrides;
  int steps = 7;
  int warm_up = 3;
  std::int64_t square = 0;  // 0: by the device
  bool kernels = false;
  bool generation = false;
  std::string profile;
};

// Rows of random tokens: what a step costs does not depend on what they say.
class RandomSource final : public BatchSource {
 public:
  RandomSource(const RunConfig& config, std::int64_t row_tokens)
      : rows_(config.data.batch_rows),
        row_tokens_(row_tokens),
        segment_tokens_(config.model.segment_tokens),
        vocabulary_(config.model.vocabulary),
        seed_(static_cast<std::uint64_t>(config.seed)) {}

  SequenceBatch batch(std::int64_t step, int first_row, int rows) const override {
    SequenceBatch batch = padded_batch(rows, row_tokens_, segment_tokens_, 0);
    const RandomKey key{.seed = seed_,
                        .step = static_cast<std::uint64_t>(step),
                        .site = static_cast<std::uint32_t>(first_row)};
    for (std::size_t i = 0; i < batch.tokens.size(); ++i) {
      batch.tokens[i] = static_cast<std::int32_t>(key.below(2 * i, vocabulary_));
      batch.targets[i] = static_cast<std::int32_t>(key.below(2 * i + 1, vocabulary_));
      batch.keep[i] = 1;
    }
    finish_batch(batch);
    return batch;
  }
  int batch_rows() const override { return rows_; }
  std::int64_t steps_per_epoch() const override { return 0; }
  int vocabulary() const override { return vocabulary_; }
  std::string description() const override { return "random tokens"; }

 private:
  int rows_;
  std::int64_t row_tokens_, segment_tokens_;
  int vocabulary_;
  std::uint64_t seed_;
};

// Where the time of one step goes, mark by mark; what lies between marks belongs to the later one.
void profile_step(Training& training, const std::string& file) {
  begin_profile();
  const auto begin = std::chrono::steady_clock::now();
  training.step();
  const double seconds = seconds_since(begin);
  const std::vector<ProfileEntry> entries = end_profile();
  if (!training.layout().is_first()) return;
  double sum = 0;
  for (const ProfileEntry& entry : entries) sum += entry.seconds;
  std::string lines = text("seconds of the step ", seconds, ", of its parts ", sum, "\n");
  for (const ProfileEntry& entry : entries)
    lines += fmt::format("{:9.3f} ms {:5.1f} % {:6d} x {:8.3f} to {:8.3f} ms  {}\n",
                         entry.seconds * 1e3, 100 * entry.seconds / sum, entry.count,
                         entry.least * 1e3, entry.most * 1e3, entry.name);
  write_text(file, lines);
}

// Of all ranks: seconds are those of the slowest. `product` is the rate of one rank, known to the
// first.
void bench_step(const RunConfig& config, const BenchOptions& options, const Layout& layout,
                double product) {
  const std::int64_t row_tokens = config.data.longest_row_tokens(config.model.segment_tokens);
  Training training(config, std::make_unique<RandomSource>(config, row_tokens), "", layout);
  const Device device = training.device();
  const double tokens =
      static_cast<double>(config.data.batch_rows) * static_cast<double>(row_tokens);
  for (int i = 0; i < options.warm_up; ++i) training.step();
  StepReport last;
  int skipped = 0;  // a step that is not finite costs less: it counts for nothing
  const auto step = [&] {
    last = training.step();
    skipped += last.skipped ? 1 : 0;
  };
  reset_peak(device);
  const std::int64_t system_before = memory_statistics(device).system_allocations;
  const Times mine = timed(device, options.steps, step, 0);
  const MemoryStatistics memory = memory_statistics(device);
  const auto of_ranks = [&](double number) { return layout.all.gather(number); };
  const auto most = [&](double number) { return std::ranges::max(of_ranks(number)); };
  const Times time{.least = most(mine.least), .median = most(mine.median), .most = most(mine.most)};
  const std::vector<double> peaks = of_ranks(static_cast<double>(memory.peak_bytes));
  const double reserved = most(static_cast<double>(memory.reserved_bytes));
  const double allocations = most(static_cast<double>(memory.system_allocations - system_before));
  const double rate = tokens / time.median, flops = rate * training_flops_per_token(config.model);
  const auto whole = [](double number) { return static_cast<std::int64_t>(number); };
  if (layout.is_first())
    print_line(
        {{"what", "training step"},
         {"schedule", config.train.schedule == RowSchedule::kParallel ? "parallel" : "streaming"},
         {"batch_rows", config.data.batch_rows},
         {"row_tokens", row_tokens},
         {"ranks", layout.ranks()},
         {"loss", last.token_loss},
         {"skipped_steps", skipped},
         {"seconds", time.median},
         {"tokens_per_second", rate},
         {"tokens_per_second_range", {tokens / time.most, tokens / time.least}},
         {"gflops", flops / 1e9},
         {"share_of_product_rate", flops / (product * layout.ranks())},
         {"peak_bytes", whole(std::ranges::max(peaks))},
         {"peak_bytes_of_ranks", std::vector<std::int64_t>(peaks.begin(), peaks.end())},
         {"reserved_bytes", whole(reserved)},
         {"system_allocations_after_warm_up", whole(allocations)}});
  if (!options.profile.empty()) profile_step(training, options.profile);
}

// What one device can do, and what a rank's part of a step is made of.
Ceilings bench_device(const RunConfig& config, const BenchOptions& options, const Layout& layout) {
  const DType dtype = dtype_of_compute(config.train.compute);
  const Device device = device_of(config.device);
  print_line({{"what", "machine"},
              {"device", device == Device::kCpu ? "cpu" : "cuda"},
              {"threads", thread_count()},
              {"type", name_of(dtype)}});
  const std::int64_t square = options.square           ? options.square
                              : device == Device::kCpu ? 2048
                                                       : 8192;
  const Ceilings ceilings = measure_ceilings(device, dtype, square);
  if (options.config.empty()) return ceilings;
  const std::int64_t row_tokens =
      config.data.longest_row_tokens(config.model.segment_tokens) / layout.segments;
  const int batch_rows = config.data.batch_rows / (config.train.accumulate * layout.data);
  if (options.kernels) {
    const std::int64_t rows = row_tokens * batch_rows;
    bench_products(config.model, device, dtype,
                   device == Device::kCpu ? std::min<std::int64_t>(rows, 8192) : rows);
    bench_kernels(config, device, batch_rows, row_tokens, ceilings);
  }
  if (options.generation) bench_generation(config, device, ceilings);
  release_cached(device);
  return ceilings;
}

int bench(const World& world, const BenchOptions& options) {
  RunConfig config;
  if (!options.config.empty()) config = read_run_config(options.config, options.overrides);
  if (config.model.vocabulary == 0 && config.data.source != DataKind::kPasskey &&
      !options.config.empty())
    config.model.vocabulary = open_store(config.data)->vocabulary();
  if (config.model.vocabulary == 0) config.model.vocabulary = 64;
  const Layout layout = make_layout(Communicator(world), config.parallel);
  const Watchdog watchdog(world, layout.all, config.parallel);
  const Device device = device_of(config.device);
  check<ConfigError>(options.profile.empty() || device == Device::kCuda,
                     "--profile marks the work of a GPU, and this run is on the CPU");
  if (device == Device::kCuda) choose_gpu(world);
  allow_tf32(config.train.compute == Compute::kTf32);
  // The others wait, so that they take nothing from what is measured.
  Ceilings ceilings;
  if (layout.is_first()) ceilings = bench_device(config, options, layout);
  layout.all.all_agree(true);
  if (!options.config.empty())
    bench_step(config, options, layout, ceilings.product_flops_per_second);
  return kExitDone;
}

}  // namespace

void add_bench(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<BenchOptions>();
  CLI::App* command =
      app.add_subcommand("bench", "rates of this machine and of a training step, as JSON lines");
  command->add_option("config", options->config, "the YAML whose step is timed, on random tokens");
  command->add_option("overrides", options->overrides, "key=value on top of it");
  command->add_option("--steps", options->steps, "timed steps; the median counts")
      ->capture_default_str()
      ->check(at_least(1));
  command->add_option("--warm-up", options->warm_up, "steps before them")
      ->capture_default_str()
      ->check(at_least(0));
  command
      ->add_option("--square", options->square,
                   "size of the square product that others are compared with; without it 2048 on a "
                   "CPU, 8192 on a GPU")
      ->check(at_least(1));
  command->add_flag("--kernels", options->kernels,
                    "also the products and every kernel of the step by itself");
  command->add_flag("--generation", options->generation, "also the time of a generated token");
  command->add_option("--profile", options->profile,
                      "a file for where the time of one step goes, on a GPU");
  command->callback([options, &exit_code] {
    exit_code = on_ranks([&](const World& world) { return bench(world, *options); });
  });
}

}  // namespace infini
