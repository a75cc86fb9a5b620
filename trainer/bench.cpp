// infini bench: what this machine can do, and how near a training step comes. JSON lines.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "distributed/world.h"
#include "model/flops.h"
#include "tensor/ops/product.h"
#include "tensor/parallel.h"
#include "trainer/commands.h"
#include "trainer/config_reader.h"
#include "trainer/exit_codes.h"
#include "trainer/training.h"

namespace infini {
namespace {

struct BenchOptions {
  std::string config;
  std::vector<std::string> overrides;
  int steps = 7;
  std::int64_t square = 2048;
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

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// After one run to warm up: least, median and most of `times` runs.
struct Times {
  double least, median, most;
};
Times timed(int times, const std::function<void()>& work) {
  work();
  std::vector<double> seconds;
  for (int i = 0; i < times; ++i) seconds.push_back(seconds_of(work));
  std::sort(seconds.begin(), seconds.end());
  return {.least = seconds.front(), .median = seconds[seconds.size() / 2], .most = seconds.back()};
}

Tensor random_tensor(const Shape& shape, DType dtype, std::uint32_t site) {
  std::vector<float> values(shape.size());
  const RandomKey key{.seed = 1, .step = 0, .site = site};
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(key.normal(i));
  return Tensor::of(values, shape).to(dtype);
}

void print(const nlohmann::ordered_json& line) { std::cout << line.dump() << std::endl; }

// Rate of op(A) op(B) in operations per second.
double product_rate(std::int64_t m, std::int64_t n, std::int64_t k, DType dtype,
                    bool weight_gradient, int times) {
  const Tensor a = random_tensor(weight_gradient ? Shape{k, m} : Shape{m, k}, dtype, 1);
  const Tensor b = random_tensor(weight_gradient ? Shape{k, n} : Shape{n, k}, dtype, 2);
  const Tensor c = Tensor::zeros({m, n}, weight_gradient ? accumulator_of(dtype) : dtype);
  const Times time = timed(times, [&] {
    multiply({.a = a,
              .b = b,
              .c = c,
              .transpose_a = weight_gradient,
              .transpose_b = !weight_gradient,
              .accumulate = weight_gradient});
  });
  const double operations =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  print({{"what", weight_gradient ? "product A^T B, added to C" : "product A B^T"},
         {"m", m},
         {"n", n},
         {"k", k},
         {"type", name_of(dtype)},
         {"gflops", operations / time.median / 1e9},
         {"gflops_best", operations / time.least / 1e9}});
  return operations / time.median;
}

void bench_copy() {
  const Tensor from = random_tensor({64 << 20}, DType::kFloat32, 3), to = Tensor::empty_like(from);
  const Times time = timed(7, [&] {
    parallel_ranges(from.bytes(), 1 << 20, [&](std::int64_t begin, std::int64_t end) {
      std::memcpy(to.raw() + begin, from.raw() + begin, end - begin);
    });
  });
  print({{"what", "copy"},
         {"gb_per_second", 2.0 * static_cast<double>(from.bytes()) / time.median / 1e9}});
}

// The products of a block over `rows` tokens, forward and weight gradient.
void bench_shapes(const ModelConfig& model, std::int64_t rows, DType dtype) {
  const std::int64_t width = model.d_model,
                     inner =
                         model.inner_width() * (model.activation == Activation::kSwiglu ? 2 : 1);
  const std::int64_t qkv =
      std::int64_t{model.heads + 2 * model.key_value_heads()} * model.head_width();
  for (const auto& [n, k] :
       {std::pair{qkv, width}, {inner, width}, {width, std::int64_t{model.inner_width()}}}) {
    product_rate(rows, n, k, dtype, false, 9);
    product_rate(n, k, rows, dtype, true, 9);
  }
}

void bench_step(const RunConfig& config, const BenchOptions& options, double product) {
  const std::int64_t row_tokens =
      config.data.source == DataKind::kPasskey
          ? config.data.passkey.row_segments.back() * config.model.segment_tokens
          : config.data.row_tokens;
  Training training(config, std::make_unique<RandomSource>(config, row_tokens), "");
  const double tokens =
      static_cast<double>(config.data.batch_rows) * static_cast<double>(row_tokens);
  training.step();
  reset_peak(Device::kCpu);
  const std::int64_t system_before = memory_statistics(Device::kCpu).system_allocations;
  const Times time = timed(options.steps, [&] { training.step(); });
  const MemoryStatistics memory = memory_statistics(Device::kCpu);
  const double rate = tokens / time.median, flops = rate * training_flops_per_token(config.model);
  print({{"what", "training step"},
         {"tokens", tokens},
         {"tokens_per_second", rate},
         {"tokens_per_second_range", {tokens / time.most, tokens / time.least}},
         {"gflops", flops / 1e9},
         {"share_of_product_rate", flops / product},
         {"peak_bytes", memory.peak_bytes},
         {"system_allocations_after_first_step", memory.system_allocations - system_before}});
}

int bench(const BenchOptions& options) {
  const World world;
  world.require_single("bench");
  RunConfig config;
  if (!options.config.empty())
    config = read_config_file<RunConfig>(options.config, options.overrides);
  if (config.model.vocabulary == 0 && config.data.source == DataKind::kStore)
    config.model.vocabulary = open_store(config.data)->vocabulary();
  if (config.model.vocabulary == 0) config.model.vocabulary = 64;
  const DType dtype = dtype_of_compute(config.train.compute);
  print({{"what", "machine"}, {"threads", thread_count()}, {"type", name_of(dtype)}});
  bench_copy();
  const double product =
      product_rate(options.square, options.square, options.square, dtype, false, options.steps);
  if (options.config.empty()) return kExitDone;
  const std::int64_t rows = std::min<std::int64_t>(
      config.data.row_tokens * config.data.batch_rows / config.train.accumulate, 8192);
  bench_shapes(config.model, rows, dtype);
  bench_step(config, options, product);
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
  command
      ->add_option("--square", options->square,
                   "size of the square product that others are compared with")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->callback([options, &exit_code] { exit_code = bench(*options); });
}

}  // namespace infini
