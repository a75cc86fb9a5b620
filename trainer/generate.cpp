// infini generate: continues a prompt of any length. The prompt is read a few segments at a time
// into the memory, then tokens are drawn one by one.
#include <spdlog/fmt/fmt.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "data/seconds_since.h"
#include "distributed/world.h"
#include "tensor/system_memory.h"
#include "trainer/commands.h"
#include "trainer/exit_codes.h"
#include "trainer/generation.h"
#include "trainer/loaded_model.h"
#include "trainer/option_checks.h"
#include "trainer/progress.h"
#include "trainer/sequence_file.h"
#include "trainer/text_file.h"
#include "trainer/written_text.h"

namespace infini {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

struct GenerateOptions {
  std::string path;
  std::string prompt, prompt_file;
  std::string load_state, save_state;
  GenerationOptions generation{.sampling = {.temperature = 0.8, .top_k = 0, .top_p = 0.95},
                               .repetition = {}};
  int samples = 1;
  std::vector<std::string> stops;
  std::string output;
  bool verbose = false;
};

struct Statistics {
  std::int64_t prompt_tokens = 0, written_tokens = 0;
  double reading_seconds = 0, writing_seconds = 0;
  std::int64_t peak_bytes = 0;

  static double rate(std::int64_t tokens, double seconds) {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
  }
  double reading_rate() const { return rate(prompt_tokens, reading_seconds); }
  double writing_rate() const { return rate(written_tokens, writing_seconds); }

  std::string line() const {
    return fmt::format(
        "read {} tokens in {:.2f} s, {} tok/s; wrote {} in {:.2f} s, {} tok/s; peak {}",
        prompt_tokens, reading_seconds, count_text(reading_rate()), written_tokens, writing_seconds,
        count_text(writing_rate()), bytes_text(peak_bytes));
  }
  Json json() const {
    return {{"prompt_tokens", prompt_tokens},
            {"reading_seconds", reading_seconds},
            {"reading_tokens_per_second", reading_rate()},
            {"written_tokens", written_tokens},
            {"writing_seconds", writing_seconds},
            {"writing_tokens_per_second", writing_rate()},
            {"peak_bytes", peak_bytes}};
  }
};

void check_options(const GenerateOptions& options) {
  check<ConfigError>(options.prompt.empty() || options.prompt_file.empty(),
                     "generate: give --prompt or --prompt-file, not both");
  options.generation.repetition.validate();
  for (const std::string& stop : options.stops)
    check<ConfigError>(!stop.empty(), "--stop: an empty text would stop everything");
  check_destination("--save-state", options.save_state);
  check_destination("--output", options.output);
  check<ConfigError>(options.output.empty() || options.output != options.save_state,
                     "--output and --save-state are both ", options.output);
}

// The prompt: a document's beginning, or what goes on with a state.
std::vector<std::int32_t> prompt_tokens(const GenerateOptions& options, const Tokenizer& tokenizer,
                                        const std::string& prompt) {
  const std::vector<std::int32_t> encoded = tokenizer.encode(prompt);
  if (!options.load_state.empty()) return encoded;
  std::vector<std::int32_t> tokens{tokenizer.end_of_text()};
  tokens.insert(tokens.end(), encoded.begin(), encoded.end());
  return tokens;
}

// Reads the prompt but for its last token, with a bar on a terminal, and counts. Where the state is
// to be saved, it is as it stands before what is drawn.
void read_prompt(const GenerateOptions& options, const LoadedModel& loaded, Sequence& sequence,
                 std::span<const std::int32_t> prompt, Statistics& statistics) {
  const std::int64_t first = sequence.tokens_read();
  const Clock::time_point begin = Clock::now();
  statistics.prompt_tokens = sequence.tokens() - first + static_cast<std::int64_t>(prompt.size());
  RedrawnLine line;
  const auto on_read = [&](std::int64_t read) {
    line.draw([&] {
      return reading_line({.tokens = read - first,
                           .total_tokens = statistics.prompt_tokens,
                           .elapsed_seconds = seconds_since(begin)},
                          line.columns() - 1);
    });
  };
  sequence.give(prompt, on_read);
  if (!options.save_state.empty()) save_sequence(options.save_state, sequence, loaded.identity);
  if (options.generation.max_tokens > 0) sequence.catch_up(on_read);
  synchronize(loaded.model->device());
  statistics.reading_seconds = seconds_since(begin);
}

std::string name_of(const Continuation& done) {
  switch (done.end) {
    case Continuation::End::kStopToken:
      return "end of text";
    case Continuation::End::kCaller:
      return "stop";
    default:
      return "tokens";
  }
}

struct Written {
  std::vector<Continuation> continuations;
  std::vector<std::string> texts;
};

// To stdout: one continuation as it comes, several when all are there. Where the state is to be
// saved and there is one, the sequence goes on with it.
Written write(const GenerateOptions& options, const GenerationOptions& generation,
              const Tokenizer& tokenizer, Sequence& sequence) {
  const bool alone = options.samples == 1;
  const std::int32_t last =
      sequence.waiting().empty() ? tokenizer.end_of_text() : sequence.waiting().back();
  const auto show = [](const std::string& piece) { std::cout << piece << std::flush; };
  std::vector<WrittenText> texts(static_cast<std::size_t>(options.samples),
                                 alone ? WrittenText(tokenizer, last, options.stops, show)
                                       : WrittenText(tokenizer, last, options.stops));
  const OnToken on_token = [&](std::size_t i, std::int32_t token) { return texts[i].add(token); };
  if (alone) std::cout << options.prompt << std::flush;
  Written written;
  if (alone && !options.save_state.empty())
    written.continuations = {go_on(sequence, generation, on_token)};
  else
    written.continuations = sample(sequence, options.samples, generation, on_token);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    texts[i].finish();
    written.texts.push_back(texts[i].text());
    if (!alone)
      std::cout << "=== sample " << i + 1 << " of " << texts.size() << " ===\n"
                << options.prompt << texts[i].text();
    std::cout << '\n';
  }
  std::cout << std::flush;
  return written;
}

std::string json_of(const LoadedModel& loaded, const Written& written,
                    const Statistics& statistics) {
  Json samples = Json::array();
  for (std::size_t i = 0; i < written.texts.size(); ++i)
    samples.push_back({{"text", written.texts[i]},
                       {"tokens", written.continuations[i].tokens},
                       {"ended_by", name_of(written.continuations[i])}});
  const Json whole{{"checkpoint", loaded.checkpoint.string()},
                   {"step", loaded.step},
                   {"samples", samples},
                   {"statistics", statistics.json()}};
  // A text of bytes may end inside a character, which is shown as U+FFFD.
  return whole.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

int generate(const GenerateOptions& options) {
  const World world;
  world.require_single("generate");
  check_options(options);
  const LoadedModel loaded = load_model(options.path);
  check<ConfigError>(loaded.tokenizer != nullptr, loaded.checkpoint.string(),
                     " holds no tokenizer");
  const Tokenizer& tokenizer = *loaded.tokenizer;
  const std::vector<std::int32_t> prompt =
      prompt_tokens(options, tokenizer,
                    options.prompt_file.empty() ? options.prompt : read_text(options.prompt_file));
  Sequence sequence = options.load_state.empty()
                          ? Sequence(*loaded.model)
                          : load_sequence(options.load_state, *loaded.model, loaded.identity);
  check<ConfigError>(!sequence.ended() || !prompt.empty() || options.generation.max_tokens == 0,
                     options.load_state,
                     ": its text has come to its end; --prompt gives it something to go on with");

  const Device device = loaded.model->device();
  reset_peak(device);
  Statistics statistics;
  read_prompt(options, loaded, sequence, prompt, statistics);
  GenerationOptions generation = options.generation;
  generation.stop_tokens = {tokenizer.end_of_text()};
  const Clock::time_point begin = Clock::now();
  const Written written = write(options, generation, tokenizer, sequence);
  statistics.writing_seconds = seconds_since(begin);
  for (const Continuation& done : written.continuations)
    statistics.written_tokens += static_cast<std::int64_t>(done.tokens.size());
  statistics.peak_bytes = memory_statistics(device).peak_bytes;
  if (!options.save_state.empty() && options.samples == 1 && options.generation.max_tokens > 0)
    save_sequence(options.save_state, sequence, loaded.identity);
  if (options.verbose) std::cerr << statistics.line() << '\n';
  if (!options.output.empty()) write_text(options.output, json_of(loaded, written, statistics));
  return kExitDone;
}

}  // namespace

void add_generate(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<GenerateOptions>();
  GenerationOptions& generation = options->generation;
  CLI::App* command = app.add_subcommand("generate", "continue a prompt of any length");
  command
      ->add_option("checkpoint", options->path, "a checkpoint, or a run whose newest one is taken")
      ->required();
  command->add_option("--prompt", options->prompt, "what to continue; it is written, too");
  command->add_option("--prompt-file", options->prompt_file,
                      "the same from a file, which is not written; - is standard input");
  command->add_option("--load-state", options->load_state,
                      "go on from a saved state, with the prompt after it where there is one");
  command->add_option("--save-state", options->save_state,
                      "a file for where the text stands: after the prompt, then after what one "
                      "sample wrote; --tokens 0 only reads");
  command->add_option("--tokens", generation.max_tokens, "at most so many new tokens")
      ->capture_default_str()
      ->check(at_least(0));
  command->add_option("--samples", options->samples, "so many continuations of one prompt")
      ->capture_default_str()
      ->check(at_least(1));
  command->add_option("--rows-at-once", generation.rows_at_once, "samples that advance together")
      ->capture_default_str()
      ->check(at_least(1));
  command
      ->add_option("--temperature", generation.sampling.temperature,
                   "0: always the most likely token")
      ->capture_default_str()
      ->check(at_least(0));
  command->add_option("--top-k", generation.sampling.top_k, "only the k most likely; 0: all")
      ->capture_default_str()
      ->check(at_least(0));
  command
      ->add_option("--top-p", generation.sampling.top_p,
                   "only the most likely that together reach this probability")
      ->capture_default_str()
      ->check(between(0, 1));
  command
      ->add_option("--repetition-penalty", generation.repetition.penalty,
                   "above 1: tokens that were written become less likely; 1: none")
      ->capture_default_str();
  command
      ->add_option("--no-repeat-ngram", generation.repetition.no_repeat_ngram,
                   "so many tokens in a row are not written twice; 0: they may be")
      ->capture_default_str()
      ->check(at_least(0));
  command
      ->add_option("--stop", options->stops,
                   "end before this text, may be given several times; the end of text always stops")
      ->allow_extra_args(false);
  command->add_option("--seed", generation.seed, "the same seed draws the same text")
      ->capture_default_str();
  command->add_option("--output", options->output,
                      "also write texts, tokens and figures to this JSON file");
  command->add_flag("--verbose", options->verbose,
                    "tokens, speed and peak memory on standard error");
  command->callback([options, &exit_code] { exit_code = generate(*options); });
}

}  // namespace infini
