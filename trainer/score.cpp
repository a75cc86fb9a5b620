// infini score: the log-probability of every token of a text, as JSON lines.
#include <algorithm>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "distributed/world.h"
#include "trainer/commands.h"
#include "trainer/document_scores.h"
#include "trainer/exit_codes.h"
#include "trainer/loaded_model.h"
#include "trainer/text_file.h"

namespace infini {
namespace {

struct ScoreOptions {
  std::string path;
  std::string input = "-";
  std::string output;
  bool memory_off = false;
};

int score(const ScoreOptions& options) {
  const World world;
  world.require_single("score");
  check_destination("--output", options.output);
  const LoadedModel loaded = load_model(options.path);
  check<ConfigError>(loaded.tokenizer != nullptr, loaded.checkpoint.string(),
                     " holds no tokenizer");
  loaded.model->use_memory(!options.memory_off);
  const std::vector<std::int32_t> encoded = loaded.tokenizer->encode(read_text(options.input));
  check<DataError>(!encoded.empty(), options.input, ": no text to score");
  std::vector<std::int32_t> tokens{loaded.tokenizer->end_of_text()};  // what a document begins with
  tokens.insert(tokens.end(), encoded.begin(), encoded.end());

  std::ofstream file;
  if (!options.output.empty()) file.open(options.output, std::ios::binary | std::ios::trunc);
  check<DeviceError>(options.output.empty() || file.good(), "cannot write ", options.output);
  std::ostream& out = options.output.empty() ? std::cout : file;

  const std::int64_t segment = loaded.config.model.segment_tokens;
  const auto read = [&](std::int64_t begin, std::span<std::int32_t> part) {
    std::copy_n(tokens.begin() + begin, part.size(), part.begin());
  };
  const auto print = [&](std::int64_t begin, std::span<const std::int32_t> targets,
                         std::span<const double> nll) {
    for (std::size_t t = 0; t < targets.size(); ++t) {
      const std::int64_t position = begin + static_cast<std::int64_t>(t);
      const nlohmann::ordered_json line{{"position", position},
                                        {"segment", position / segment},
                                        {"token", targets[t]},
                                        {"text", loaded.tokenizer->decode(targets.subspan(t, 1))},
                                        {"log_probability", -nll[t]}};
      // A token may be part of a character: what is not UTF-8 by itself is shown as U+FFFD.
      out << line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    }
  };
  score_document(*loaded.model, static_cast<std::int64_t>(encoded.size()),
                 loaded.config.evaluate.segments_at_once, read, print);
  check<DeviceError>(out.flush().good(), "cannot write ",
                     options.output.empty() ? "standard output" : options.output);
  return kExitDone;
}

}  // namespace

void add_score(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<ScoreOptions>();
  CLI::App* command =
      app.add_subcommand("score", "log-probability of every token of a text, as JSON lines");
  command
      ->add_option("checkpoint", options->path, "a checkpoint, or a run whose newest one is taken")
      ->required();
  command->add_option("--input", options->input, "the text, one document; - is standard input")
      ->capture_default_str();
  command->add_option("--output", options->output, "the JSON lines; default: standard output");
  command->add_flag("--memory-off", options->memory_off,
                    "no segment reads what those before it left");
  command->callback([options, &exit_code] { exit_code = score(*options); });
}

}  // namespace infini
