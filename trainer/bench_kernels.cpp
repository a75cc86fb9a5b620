#include "trainer/bench_kernels.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>

#include "data/seconds_since.h"
#include "model/transformer.h"
#include "optim/optimizer.h"
#include "tensor/ops/activation.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/memory.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/product.h"
#include "tensor/ops/recall.h"
#include "tensor/ops/rotary.h"
#include "tensor/ops/scan.h"
#include "tensor/profile.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

constexpr int kTimes = 9;

double seconds_of(Device device, const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  synchronize(device);
  return seconds_since(begin);
}

// Standard normal numbers; a block of them over and over where there are many.
Tensor random_tensor(const Shape& shape, DType dtype, Device device, std::uint32_t site) {
  constexpr std::int64_t kBlock = 1 << 22;
  const RandomKey key{.seed = 1, .step = 0, .site = site};
  const std::int64_t size = shape.size(), drawn = std::min(size, kBlock);
  std::vector<float> values(drawn);
  for (std::int64_t i = 0; i < drawn; ++i) values[i] = static_cast<float>(key.normal(i));
  const Tensor block = Tensor::of(values, {drawn}).to(dtype).to(device);
  const Tensor flat = Tensor::empty({size}, dtype, device);
  for (std::int64_t begin = 0; begin < size; begin += drawn) {
    const std::int64_t count = std::min(drawn, size - begin);
    flat.slice(begin, count).copy_from(block.slice(0, count));
  }
  return flat.reshape(shape);
}

// What one pass must do, whatever the kernel: bytes read and written once, operations.
struct Work {
  double bytes = 0, operations = 0;
};

class KernelBench {
 public:
  KernelBench(Device device, const Ceilings& ceilings) : device_(device), ceilings_(ceilings) {}

  // forward(tape) runs the op on inputs watched by the tape and returns its outputs.
  using Forward = std::function<std::vector<Tensor>(Tape& tape)>;
  void run(const std::string& name, const Forward& forward, const Work& there, const Work& back) {
    std::vector<double> forwards, backwards;
    for (int i = 0; i <= kTimes; ++i) {
      Tape tape;
      std::vector<Tensor> outputs;
      forwards.push_back(seconds([&] { outputs = forward(tape); }));
      for (const Tensor& output : outputs)
        if (output.tape()) tape.seed(output, gradient_of(output));
      backwards.push_back(seconds([&] { tape.backward(); }));
    }
    report(name, "forward", forwards, there);
    if (back.bytes > 0 || back.operations > 0) report(name, "backward", backwards, back);
  }
  void once(const std::string& name, const std::function<void()>& work, const Work& amount) {
    std::vector<double> times;
    for (int i = 0; i <= kTimes; ++i) times.push_back(seconds(work));
    report(name, "whole", times, amount);
  }

 private:
  // On a GPU by events around the work, with something before it so that launches do not count.
  double seconds(const std::function<void()>& work) {
    if (device_ == Device::kCpu) return seconds_of(device_, work);
    for (int i = 0; i < 4; ++i) ahead_.fill_zero();
    begin_profile();
    work();
    double total = 0;
    for (const ProfileEntry& entry : end_profile()) total += entry.seconds;
    return total;
  }

  Tensor gradient_of(const Tensor& output) {
    if (output.size() == 1)
      return Tensor::of(std::vector<double>{1}, output.shape())
          .to(output.dtype())
          .to(output.device());
    return random_tensor(output.shape(), output.dtype(), output.device(), 99);
  }

  void report(const std::string& name, const char* pass, std::vector<double> times,
              const Work& amount) const {
    times.erase(times.begin());
    std::sort(times.begin(), times.end());
    const double median = times[times.size() / 2];
    nlohmann::ordered_json line{
        {"what", "kernel"}, {"name", name}, {"pass", pass}, {"microseconds", median * 1e6}};
    const double by_bytes = amount.bytes / ceilings_.copy_bytes_per_second;
    const double by_operations = amount.operations / ceilings_.product_flops_per_second;
    if (amount.bytes > 0) line["tb_per_second"] = amount.bytes / median / 1e12;
    if (amount.operations > 0) line["tflops"] = amount.operations / median / 1e12;
    line["bound"] = by_bytes > by_operations ? "memory" : "arithmetic";
    line["share_of_bound"] = std::max(by_bytes, by_operations) / median;
    print_line(line);
  }

  Device device_;
  Ceilings ceilings_;
  Tensor ahead_ = Tensor::empty({device_ == Device::kCpu ? 1 : 64 << 20}, DType::kUInt8, device_);
};

// Rate of op(A) op(B) in operations per second.
double product_rate(std::int64_t m, std::int64_t n, std::int64_t k, DType dtype, Device device,
                    bool weight_gradient, int times) {
  const Tensor a = random_tensor(weight_gradient ? Shape{k, m} : Shape{m, k}, dtype, device, 1);
  const Tensor b = random_tensor(weight_gradient ? Shape{k, n} : Shape{n, k}, dtype, device, 2);
  const Tensor c = Tensor::zeros({m, n}, weight_gradient ? accumulator_of(dtype) : dtype, device);
  const Times time = timed(device, times, [&] {
    multiply({.a = a,
              .b = b,
              .c = c,
              .transpose_a = weight_gradient,
              .transpose_b = !weight_gradient,
              .accumulate = weight_gradient});
  });
  const double operations =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  print_line({{"what", weight_gradient ? "product A^T B, added to C" : "product A B^T"},
              {"m", m},
              {"n", n},
              {"k", k},
              {"type", name_of(dtype)},
              {"gflops", operations / time.median / 1e9},
              {"gflops_best", operations / time.least / 1e9}});
  return operations / time.median;
}

}  // namespace

void print_line(const nlohmann::ordered_json& line) { std::cout << line.dump() << std::endl; }

Times timed(Device device, int times, const std::function<void()>& work, int warm_up) {
  for (int i = 0; i < warm_up; ++i) seconds_of(device, work);
  std::vector<double> seconds;
  for (int i = 0; i < times; ++i) seconds.push_back(seconds_of(device, work));
  std::sort(seconds.begin(), seconds.end());
  return {.least = seconds.front(), .median = seconds[seconds.size() / 2], .most = seconds.back()};
}

Ceilings measure_ceilings(Device device, DType dtype, std::int64_t square) {
  const std::int64_t count = device == Device::kCpu ? 64 << 20 : 1 << 30;
  const Tensor from = random_tensor({count}, DType::kFloat32, device, 3),
               to = Tensor::empty_like(from);
  const Times time = timed(device, kTimes, [&] { convert_into(to, from); });
  Ceilings ceilings{.copy_bytes_per_second = 2.0 * static_cast<double>(from.bytes()) / time.median};
  print_line({{"what", "copy"}, {"gb_per_second", ceilings.copy_bytes_per_second / 1e9}});
  ceilings.product_flops_per_second =
      product_rate(square, square, square, dtype, device, false, kTimes);
  return ceilings;
}

void bench_products(const ModelConfig& model, Device device, DType dtype, std::int64_t rows) {
  const std::int64_t width = model.d_model, inner = model.inner_width();
  const std::int64_t up = inner * (model.has_gated_activation() ? 2 : 1);
  const std::int64_t queries = std::int64_t{model.heads} * model.head_width();
  const std::int64_t qkv =
      std::int64_t{model.heads + 2 * model.key_value_heads()} * model.head_width();
  for (const auto& [n, k] :
       {std::pair{qkv, width}, {width, queries}, {up, width}, {width, inner}}) {
    product_rate(rows, n, k, dtype, device, false, kTimes);
    product_rate(n, k, rows, dtype, device, true, kTimes);
  }
}

void bench_kernels(const RunConfig& config, Device device, std::int64_t batch_rows,
                   std::int64_t row_tokens, const Ceilings& ceilings) {
  const ModelConfig& model = config.model;
  const DType dtype = dtype_of_compute(config.train.compute), full = accumulator_of(dtype);
  const std::int64_t rows = batch_rows * row_tokens, width = model.d_model;
  const HeadLayout n{.batch = batch_rows,
                     .segments = row_tokens / model.segment_tokens,
                     .tokens = model.segment_tokens,
                     .heads = model.heads,
                     .kv_heads = model.key_value_heads(),
                     .head_width = model.head_width()};
  const auto element = static_cast<double>(bytes_of(dtype));
  const double r = static_cast<double>(rows);
  // Bytes of `columns` numbers for each token.
  const auto pass = [&](double columns) { return r * columns * element; };
  const auto values = [&](std::int64_t columns, std::uint32_t site) {
    return random_tensor({rows, columns}, dtype, device, site);
  };
  KernelBench bench(device, ceilings);

  {
    const Tensor x = values(width, 1);
    const Tensor weight = random_tensor({width}, full, device, 3);
    const Tensor dweight = Tensor::zeros({width}, full, device);
    const double d = static_cast<double>(width);
    bench.run(
        "norm",
        [&](Tape& tape) {
          return std::vector{rms_norm(tape.watch(x), tape.watch(weight, dweight), model.norm_eps)};
        },
        {.bytes = pass(2 * d)}, {.bytes = pass(3 * d)});
  }
  {
    const bool gated = model.has_gated_activation();
    const double f = static_cast<double>(model.inner_width());
    const Tensor x = values(model.inner_width() * (gated ? 2 : 1), 4);
    const auto activate = model.activation == Activation::kSwiglu  ? swiglu
                          : model.activation == Activation::kGeglu ? geglu
                                                                   : gelu;
    bench.run(gated ? std::string(name_of(model.activation)) : "gelu",
              [&](Tape& tape) { return std::vector{activate(tape.watch(x))}; },
              {.bytes = pass(3 * f)}, {.bytes = pass((gated ? 5 : 3) * f)});
  }
  {
    const double q = static_cast<double>(n.query_width()),
                 k = static_cast<double>(n.rotated_width() - n.query_width());
    const Tensor qkv = values(n.qkv_width(), 5), rotated = values(n.rotated_width(), 6),
                 local = values(n.query_width(), 7);
    const Tensor table = rotary_table(n.tokens, n.head_width, model.rope_base, full, device);
    bench.run("rotary", [&](Tape& tape) { return std::vector{rotate(tape.watch(qkv), table, n)}; },
              {.bytes = pass(2 * (q + k))}, {.bytes = pass(2 * (q + k))});

    const double pairs = r * static_cast<double>(n.tokens) / 2 * q;  // causal: half of all
    bench.run(
        "local attention",
        [&](Tape& tape) {
          return std::vector{local_attention(tape.watch(rotated), tape.watch(qkv), n,
                                             1 / std::sqrt(static_cast<double>(n.head_width)))};
        },
        {.operations = 4 * pairs}, {.operations = 10 * pairs});

    const double head = static_cast<double>(n.head_width);
    bench.run("memory sums",
              [&](Tape& tape) {
                const MemorySums sums = memory_sums(tape.watch(qkv), {}, n);
                return std::vector{sums.matrix, sums.normalizer};
              },
              {.bytes = pass(2 * k), .operations = 2 * r * k * head},
              {.bytes = pass(4 * k), .operations = 4 * r * k * head});
    const Tensor matrix = random_tensor(n.matrix_shape(), full, device, 8);
    const Tensor normalizer = Tensor::zeros(n.normalizer_shape(), full, device);
    normalizer.copy_from(
        Tensor::of(std::vector<float>(normalizer.size(), 300.0f), normalizer.shape())
            .to(full)
            .to(device));
    const Tensor gate = random_tensor({n.heads}, full, device, 9);
    bench.run("memory recall",
              [&](Tape& tape) {
                return std::vector{memory_recall(tape.watch(qkv), tape.watch(matrix),
                                                 tape.watch(normalizer), tape.watch(gate),
                                                 tape.watch(local), n, {.eps = model.memory_eps})};
              },
              {.bytes = pass(3 * q), .operations = 2 * r * q * head},
              {.bytes = pass(5 * q), .operations = 6 * r * q * head});
    bench.run(
        "memory overlap",
        [&](Tape& tape) {
          return std::vector{memory_overlap(tape.watch(qkv), {}, tape.watch(normalizer), n, 1e-6)};
        },
        {.bytes = pass(k), .operations = 2 * r * k * head},
        {.bytes = pass(2 * k), .operations = 4 * r * k * head});
    const auto states = static_cast<double>(matrix.bytes());
    bench.run("memory scan",
              [&](Tape& tape) { return std::vector{scan(tape.watch(matrix), {}, {}).before}; },
              {.bytes = 2 * states}, {.bytes = 2 * states});
    const Tensor overlap = Tensor::empty_like(matrix);
    overlap.fill_zero();
    bench.run(
        "memory affine scan",
        [&](Tape& tape) {
          return std::vector{affine_scan(tape.watch(overlap), tape.watch(matrix), {}, {}).before};
        },
        {.bytes = 3 * states}, {.bytes = 5 * states});
  }
  {
    std::vector<std::int32_t> ids(rows);
    const RandomKey key{.seed = 2};
    for (std::int64_t i = 0; i < rows; ++i)
      ids[i] = static_cast<std::int32_t>(key.below(i, model.vocabulary));
    const Tensor tokens = Tensor::of(ids, {rows}).to(device);
    const Tensor table = random_tensor({model.vocabulary, width}, dtype, device, 10);
    const Tensor dtable = Tensor::zeros(table.shape(), full, device);
    const double d = static_cast<double>(width);
    bench.run("embedding",
              [&](Tape& tape) { return std::vector{embedding(tokens, tape.watch(table, dtable))}; },
              {.bytes = pass(2 * d)},
              {.bytes = pass(d) + 2 * std::min(r, static_cast<double>(model.vocabulary)) * d * 4});

    if (device == Device::kCuda) {
      const std::int64_t chunk = std::min<std::int64_t>(rows, 8192);
      const Tensor logits = random_tensor({chunk, model.vocabulary}, dtype, device, 11);
      const Tensor nll = Tensor::empty({chunk}, full, device);
      bench.once("cross-entropy of a chunk",
                 [&] {
#ifdef INFINI_CUDA
                   cuda_cross_entropy().chunk({.logits = logits,
                                               .targets = tokens.slice(0, chunk),
                                               .weights = {},
                                               .scale = 1,
                                               .nll = nll,
                                               .dlogits = logits});
#endif
                 },
                 {.bytes = 2.0 * static_cast<double>(logits.bytes())});
    }
  }
  {
    Parameters parameters(parameter_specs(model), dtype, device);
    const auto count = static_cast<double>(parameters.count());
    for (const OptimizerKind kind : {OptimizerKind::kAdamW, OptimizerKind::kAdafactor}) {
      OptimConfig optim = config.optim;
      optim.kind = kind;
      const auto optimizer = make_optimizer(optim, parameters);
      const bool momentum = kind == OptimizerKind::kAdafactor && optim.adafactor.momentum > 0;
      const double value = dtype == full ? 0 : element;
      // AdamW reads four and writes three; Adafactor reads the gradient for its means, its update
      // and the size of it, and the parameter twice.
      const double numbers = kind == OptimizerKind::kAdamW ? 7 : momentum ? 8 : 6;
      bench.once(kind == OptimizerKind::kAdamW ? "adamw" : "adafactor",
                 [&] { optimizer->step(1e-3); },
                 {.bytes = count * (numbers * static_cast<double>(bytes_of(full)) + value)});
    }
    bench.once("sum of squares", [&] { square_sum(parameters.gradients()); },
               {.bytes = static_cast<double>(parameters.gradients().bytes())});
  }
}

}  // namespace infini
