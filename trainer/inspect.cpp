// `infini inspect`: what a configuration, a checkpoint, a run or a token store holds.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>

#include "data/example_store.h"
#include "data/token_store.h"
#include "distributed/world.h"
#include "trainer/checkpoint.h"
#include "trainer/commands.h"
#include "trainer/config_writer.h"
#include "trainer/exit_codes.h"
#include "trainer/progress.h"
#include "trainer/run_config.h"
#include "trainer/run_config_file.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

struct Statistics {
  double least = INFINITY, greatest = -INFINITY, sum = 0, squares = 0;
  std::int64_t count = 0, not_finite = 0;

  void add(double value) {
    ++count;
    if (!std::isfinite(value)) {
      ++not_finite;
      return;
    }
    least = std::min(least, value);
    greatest = std::max(greatest, value);
    sum += value;
    squares += value * value;
  }
};

template <class T>
void add_all(const std::vector<char>& bytes, Statistics& statistics) {
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    statistics.add(static_cast<double>(value));
  }
}

void add_bf16(const std::vector<char>& bytes, Statistics& statistics) {
  for (std::size_t at = 0; at < bytes.size(); at += 2) {
    float value = 0;  // bf16 is the upper half of an fp32
    std::memcpy(reinterpret_cast<char*>(&value) + 2, bytes.data() + at, 2);
    statistics.add(value);
  }
}

std::size_t element_bytes(const std::string& dtype) {
  if (dtype == "f64" || dtype == "i64" || dtype == "u64") return 8;
  if (dtype == "f32" || dtype == "i32" || dtype == "u32") return 4;
  return dtype == "bf16" ? 2 : 1;
}

Statistics statistics_of(const Checkpoint& checkpoint, const BufferInfo& info) {
  std::size_t count = 1;
  for (const std::int64_t size : info.shape) count *= static_cast<std::size_t>(size);
  std::vector<char> bytes(count * element_bytes(info.dtype));
  const NamedBuffer buffer{info.name, info.dtype, info.shape, bytes.data(), bytes.size()};
  checkpoint.read({&buffer, 1});

  Statistics statistics;
  if (info.dtype == "f64") add_all<double>(bytes, statistics);
  if (info.dtype == "f32") add_all<float>(bytes, statistics);
  if (info.dtype == "bf16") add_bf16(bytes, statistics);
  if (info.dtype == "i64") add_all<std::int64_t>(bytes, statistics);
  if (info.dtype == "i32") add_all<std::int32_t>(bytes, statistics);
  if (info.dtype == "u64") add_all<std::uint64_t>(bytes, statistics);
  if (info.dtype == "u32") add_all<std::uint32_t>(bytes, statistics);
  if (info.dtype == "u8") add_all<std::uint8_t>(bytes, statistics);
  return statistics;
}

void print_checkpoint(const Checkpoint& checkpoint) {
  std::printf(
      "checkpoint  %s\nstep        %lld\nshards      %d\nsize        %s, every hash matches\n",
      checkpoint.directory().c_str(), static_cast<long long>(checkpoint.step()), checkpoint.ranks(),
      bytes_text(static_cast<std::int64_t>(checkpoint.bytes())).c_str());
  std::printf("position    %s\n\n%s\n", checkpoint.position_json().c_str(),
              checkpoint.config_yaml().c_str());
  std::printf("%-44s %-22s %12s %12s %12s %12s\n", "buffer", "type", "min", "max", "mean", "rms");
  for (const BufferInfo& info : checkpoint.buffers()) {
    const Statistics s = statistics_of(checkpoint, info);
    const double finite = static_cast<double>(std::max<std::int64_t>(s.count - s.not_finite, 1));
    std::printf("%-44s %-22s ", info.name.c_str(), type_text(info.dtype, info.shape).c_str());
    if (s.count > s.not_finite)
      std::printf("%12.4g %12.4g %12.4g %12.4g", s.least, s.greatest, s.sum / finite,
                  std::sqrt(s.squares / finite));
    if (s.not_finite > 0)
      std::printf("  %lld of %lld NOT FINITE", static_cast<long long>(s.not_finite),
                  static_cast<long long>(s.count));
    std::printf("\n");
  }
}

void print_store(const fs::path& path) {
  const auto store = TokenStore::open(path);
  std::int64_t longest = 0;
  for (const StoredDocument& document : store->documents())
    longest = std::max(longest, document.tokens);
  const auto row = [](const char* name, const auto& value) {
    std::cout << name << std::string(18 - std::strlen(name), ' ') << value << "\n";
  };
  row("token store", path.string());
  row("split", store->split());
  row("documents", store->documents().size());
  if (store->has_examples()) row("examples", ExampleStore::of(store)->examples().size());
  row("tokens", store->tokens());
  row("longest document", text(longest, " tokens"));
  row("bytes of text", store->bytes());
  row("words", store->words());
  row("tokenizer", text(store->tokenizer().kind(), " ", store->tokenizer().hash_text()));
  row("vocabulary", store->vocabulary());
}

int run(const fs::path& path, const std::vector<std::string>& overrides) {
  World().require_single("inspect");
  check<ConfigError>(!path.empty(), "inspect: expected a path, or --keys");
  check<ConfigError>(fs::exists(path), path.string(), ": no such file or folder");
  const bool is_config = path.extension() == ".yaml" || path.extension() == ".yml";
  check<ConfigError>(is_config || overrides.empty(),
                     "inspect: ", overrides.empty() ? "" : overrides[0],
                     ": only a configuration takes key=value");
  if (is_config) {
    std::cout << config_yaml(read_run_config(path, overrides));
  } else if (path.extension() == ".h5") {
    print_store(path);
  } else if (fs::exists(path / "checkpoints")) {
    const auto latest = find_latest(path);
    check<ConfigError>(latest.has_value(), path.string(), ": this run has no checkpoint yet");
    print_checkpoint(*latest);
  } else {
    check<ConfigError>(
        fs::is_directory(path), path.string(),
        ": expected a .yaml configuration, a .h5 token store, a checkpoint or a run");
    print_checkpoint(Checkpoint(path));
  }
  return kExitDone;
}

}  // namespace

void add_inspect(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "inspect", "Show what a configuration (.yaml), checkpoint, run or token store (.h5) holds.");
  const auto path = std::make_shared<std::string>();
  const auto overrides = std::make_shared<std::vector<std::string>>();
  const auto keys = std::make_shared<bool>(false);
  command->add_option("path", *path, "what to look at");
  command->add_flag("--keys", *keys, "list every key of a configuration with its default");
  command->add_option("overrides", *overrides, "key=value on top of a configuration");
  command->callback([path, overrides, keys, &exit_code] {
    if (*keys) std::cout << config_help<RunConfig>();
    if (!*keys || !path->empty()) exit_code = run(*path, *overrides);
  });
}

}  // namespace infini
