// infini bench: what this machine can do, and how near a training step comes. JSON lines.
#include <spdlog/fmt/fmt.h>

#include <chrono>
#include <memory>

#include "distributed/world.h"
#include "model/flops.h"
#include "tensor/ops/product.h"
#include "tensor/parallel.h"
#include "tensor/profile.h"
#include "trainer/bench_generation.h"
#include "trainer/bench_kernels.h"
#include "trainer/commands.h"
#include "trainer/config_reader.h"
#include "trainer/exit_codes.h"
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

// The row length of the first step of a run.
std::int64_t row_tokens_of(const RunConfig& config) {
  return config.data.source == DataKind::kPasskey
             ? config.data.passkey.row_segments.back() * config.model.segment_tokens
             : config.data.row_tokens;
}

// Where the time of one step goes, mark by mark; what lies between marks belongs to the later one.
void profile_step(Training& training, const std::string& file) {
  begin_profile();
  const auto begin = std::chrono::steady_clock::now();
  training.step();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const std::vector<ProfileEntry> entries = end_profile();
  double sum = 0;
  for (const ProfileEntry& entry : entries) sum += entry.seconds;
  std::string lines = text("seconds of the step ", seconds, ", of its parts ", sum, "\n");
  for (const ProfileEntry& entry : entries)
    lines += fmt::format("{:9.3f} ms {:5.1f} % {:6d} x {:8.3f} to {:8.3f} ms  {}\n",
                         entry.seconds * 1e3, 100 * entry.seconds / sum, entry.count,
                         entry.least * 1e3, entry.most * 1e3, entry.name);
  write_text(file, lines);
}

void bench_step(const RunConfig& config, const BenchOptions& options, double product) {
  const std::int64_t row_tokens = row_tokens_of(config);
  Training training(config, std::make_unique<RandomSource>(config, row_tokens), "");
  const Device device = training.device();
  const double tokens =
      static_cast<double>(config.data.batch_rows) * static_cast<double>(row_tokens);
  for (int i = 0; i < options.warm_up; ++i) training.step();
  reset_peak(device);
  const std::int64_t system_before = memory_statistics(device).system_allocations;
  const Times time = timed(
      device, options.steps, [&] { training.step(); }, 0);
  const MemoryStatistics memory = memory_statistics(device);
  const double rate = tokens / time.median, flops = rate * training_flops_per_token(config.model);
  print_line(
      {{"what", "training step"},
       {"schedule", config.train.schedule == RowSchedule::kParallel ? "parallel" : "streaming"},
       {"batch_rows", config.data.batch_rows},
       {"row_tokens", row_tokens},
       {"seconds", time.median},
       {"tokens_per_second", rate},
       {"tokens_per_second_range", {tokens / time.most, tokens / time.least}},
       {"gflops", flops / 1e9},
       {"share_of_product_rate", flops / product},
       {"peak_bytes", memory.peak_bytes},
       {"reserved_bytes", memory.reserved_bytes},
       {"system_allocations_after_warm_up", memory.system_allocations - system_before}});
  if (!options.profile.empty()) profile_step(training, options.profile);
}

int bench(const BenchOptions& options) {
  const World world;
  world.require_single("bench");
  RunConfig config;
  if (!options.config.empty())
    config = read_config_file<RunConfig>(options.config, options.overrides);
  if (config.model.vocabulary == 0 && config.data.source == DataKind::kStore &&
      !options.config.empty())
    config.model.vocabulary = open_store(config.data)->vocabulary();
  if (config.model.vocabulary == 0) config.model.vocabulary = 64;
  const DType dtype = dtype_of_compute(config.train.compute);
  const Device device = device_of(config.device);
  check<ConfigError>(options.profile.empty() || device == Device::kCuda,
                     "--profile marks the work of a GPU, and this run is on the CPU");
  allow_tf32(config.train.compute == Compute::kTf32);
  print_line({{"what", "machine"},
              {"device", device == Device::kCpu ? "cpu" : "cuda"},
              {"threads", thread_count()},
              {"type", name_of(dtype)}});
  const std::int64_t square = options.square           ? options.square
                              : device == Device::kCpu ? 2048
                                                       : 8192;
  const Ceilings ceilings = measure_ceilings(device, dtype, square);
  if (options.config.empty()) return kExitDone;
  const std::int64_t row_tokens = row_tokens_of(config);
  const int batch_rows = config.data.batch_rows / config.train.accumulate;
  if (options.kernels) {
    const std::int64_t rows = row_tokens * batch_rows;
    bench_products(config.model, device, dtype,
                   device == Device::kCpu ? std::min<std::int64_t>(rows, 8192) : rows);
    bench_kernels(config, device, batch_rows, row_tokens, ceilings);
    release_cached(device);
  }
  if (options.generation) {
    bench_generation(config, device, ceilings);
    release_cached(device);
  }
  bench_step(config, options, ceilings.product_flops_per_second);
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
      ->check(CLI::PositiveNumber);
  command->add_option("--warm-up", options->warm_up, "steps before them")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--square", options->square,
                   "size of the square product that others are compared with; without it 2048 on a "
                   "CPU, 8192 on a GPU")
      ->check(CLI::PositiveNumber);
  command->add_flag("--kernels", options->kernels,
                    "also the products and every kernel of the step by itself");
  command->add_flag("--generation", options->generation, "also the time of a generated token");
  command->add_option("--profile", options->profile,
                      "a file for where the time of one step goes, on a GPU");
  command->callback([options, &exit_code] { exit_code = bench(*options); });
}

}  // namespace infini
