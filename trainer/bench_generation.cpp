#include "trainer/bench_generation.h"

#include <algorithm>
#include <chrono>

#include "model/decoder.h"

namespace infini {
namespace {

constexpr std::int64_t kTokens = 200, kAtOnce = 20;  // timed, between two looks at the clock

double parameter_bytes(const InfiniTransformer& model) {
  double bytes = 0;
  for (const Parameter& parameter : model.parameters().all())
    if (parameter.name != "embedding.weight" || model.config().tied)
      bytes += static_cast<double>(parameter.value.bytes());
  return bytes;
}

// Of all layers: the memory, and a token of the window.
double memory_bytes(const ModelConfig& model) {
  if (model.memory == MemoryRule::kNone) return 0;
  const double width = model.head_width();
  return model.layers * model.key_value_heads() * (width * width + width) * 4;
}
double window_bytes(const ModelConfig& model, DType dtype) {
  return 2.0 * model.layers * model.key_value_heads() * model.head_width() *
         static_cast<double>(bytes_of(dtype));
}

// Seconds a token, the median over parts of `tokens` tokens; `last` is the one to go on from.
double seconds_per_token(Decoder& decoder, std::int64_t tokens, std::int32_t& last) {
  std::vector<double> seconds;
  for (std::int64_t done = 0; done < tokens; done += kAtOnce) {
    const std::int64_t count = std::min(kAtOnce, tokens - done);
    const auto begin = std::chrono::steady_clock::now();
    last = decoder.generate_greedy(std::span(&last, 1), count).back();
    const auto end = std::chrono::steady_clock::now();
    seconds.push_back(std::chrono::duration<double>(end - begin).count() /
                      static_cast<double>(count));
  }
  std::ranges::sort(seconds);
  return seconds[seconds.size() / 2];
}

}  // namespace

void bench_generation(const RunConfig& config, Device device, const Ceilings& ceilings) {
  const DType dtype = dtype_of_compute(config.train.compute);
  InfiniTransformer model(config.model, dtype, device);
  model.parameters().initialise(static_cast<std::uint64_t>(config.seed));
  Decoder decoder(model);
  const std::int64_t segment = config.model.segment_tokens;
  check<ConfigError>(segment >= 4, "generation is timed in segments of 4 tokens and more");
  const std::int64_t tokens = std::min(kTokens, (segment - 2) / 2);
  std::vector<std::int32_t> prompt(static_cast<std::size_t>(segment));
  const RandomKey key{.seed = 1, .step = 0, .site = 0};
  for (std::size_t i = 0; i < prompt.size(); ++i)
    prompt[i] = static_cast<std::int32_t>(key.below(i, config.model.vocabulary));

  nlohmann::ordered_json line{{"what", "generation"},
                              {"type", name_of(dtype)},
                              {"one_kernel", decoder.has_kernel()},
                              {"segment_tokens", segment},
                              {"tokens", tokens}};
  std::int32_t last = prompt.back();
  const auto measure = [&](const std::string& window, std::int64_t filled) {
    const double seen = static_cast<double>(filled) + static_cast<double>(tokens) / 2;
    const double bytes = parameter_bytes(model) + memory_bytes(config.model) +
                         seen * window_bytes(config.model, dtype);
    const double seconds = seconds_per_token(decoder, tokens, last);
    line[window] = {{"microseconds_per_token", seconds * 1e6},
                    {"bytes", bytes},
                    {"tb_per_second", bytes / seconds / 1e12},
                    {"share_of_bound", bytes / ceilings.copy_bytes_per_second / seconds}};
  };
  decoder.read(prompt);
  decoder.generate_greedy(std::span(&last, 1), 1);  // to warm up
  measure("empty_window", 1);
  decoder.read(std::span(prompt).first(static_cast<std::size_t>(segment - 1 - 2 * tokens)));
  measure("full_window", segment - tokens);
  print_line(line);
}

}  // namespace infini
