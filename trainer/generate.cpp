// infini generate: continues a prompt of any length. The prompt is read segment by segment into the
// memory, then tokens are drawn one by one.
#include <array>
#include <iostream>
#include <memory>

#include "distributed/world.h"
#include "model/decoder.h"
#include "trainer/commands.h"
#include "trainer/exit_codes.h"
#include "trainer/loaded_model.h"
#include "trainer/sampling.h"
#include "trainer/text_file.h"

namespace infini {
namespace {

// Drawn at once where the most likely is always taken: enough that nobody waits for the host.
constexpr std::int64_t kGreedyTokens = 16;

struct GenerateOptions {
  std::string path;
  std::string prompt, prompt_file;
  std::int64_t tokens = 200;
  std::uint64_t seed = 1;
  SamplingOptions sampling{.temperature = 0.8, .top_k = 0, .top_p = 0.95};
};

// What a token adds to a text that ends with another one: words of the passkey task are written
// apart, the pieces of a word are not. Ids that only fill up the embedding of an import are no
// text.
std::string text_after(const Tokenizer& tokenizer, std::int32_t last, std::int32_t token) {
  if (token >= tokenizer.vocabulary()) return {};
  if (last >= tokenizer.vocabulary()) return tokenizer.decode({&token, 1});
  return tokenizer.decode(std::array{last, token}).substr(tokenizer.decode({&last, 1}).size());
}

int generate(const GenerateOptions& options) {
  const World world;
  world.require_single("generate");
  check<ConfigError>(options.prompt.empty() || options.prompt_file.empty(),
                     "generate: give --prompt or --prompt-file, not both");
  const LoadedModel loaded = load_model(options.path);
  check<ConfigError>(loaded.tokenizer != nullptr, loaded.checkpoint.string(),
                     " holds no tokenizer");
  const std::string prompt =
      options.prompt_file.empty() ? options.prompt : read_text(options.prompt_file);
  const std::vector<std::int32_t> encoded = loaded.tokenizer->encode(prompt);
  std::vector<std::int32_t> next{loaded.tokenizer->end_of_text()};
  next.insert(next.end(), encoded.begin(), encoded.end());

  std::cout << prompt << std::flush;
  Decoder decoder(*loaded.model);
  const RandomKey key{.seed = options.seed, .step = 0, .site = 0x67656E};
  std::int64_t drawn = 0;
  const auto draw = [&]() -> std::vector<std::int32_t> {
    if (options.sampling.temperature <= 0)
      return decoder.generate_greedy(next, std::min(kGreedyTokens, options.tokens - drawn));
    return {sample_token(decoder.next_logits(next), options.sampling, key,
                         static_cast<std::uint64_t>(drawn))};
  };
  for (bool ended = false; !ended && drawn < options.tokens;) {
    const std::vector<std::int32_t> tokens = draw();
    drawn += static_cast<std::int64_t>(tokens.size());
    for (const std::int32_t token : tokens) {
      ended = token == loaded.tokenizer->end_of_text();
      if (ended) break;
      std::cout << text_after(*loaded.tokenizer, next.back(), token) << std::flush;
      next = {token};
    }
  }
  std::cout << '\n';
  return kExitDone;
}

}  // namespace

void add_generate(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("generate", "continue a prompt of any length");
  command
      ->add_option("checkpoint", options->path, "a checkpoint, or a run whose newest one is taken")
      ->required();
  command->add_option("--prompt", options->prompt, "what to continue");
  command->add_option("--prompt-file", options->prompt_file,
                      "the same from a file; - is standard input");
  command->add_option("--tokens", options->tokens, "at most so many new tokens")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--temperature", options->sampling.temperature,
                   "0: always the most likely token")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--top-k", options->sampling.top_k, "only the k most likely; 0: all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--top-p", options->sampling.top_p,
                   "only the most likely that together reach this probability")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--seed", options->seed, "the same seed draws the same text")
      ->capture_default_str();
  command->callback([options, &exit_code] { exit_code = generate(*options); });
}

}  // namespace infini
