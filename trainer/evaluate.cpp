// infini evaluate: perplexity of whole documents, that of summaries given their documents, or the
// passkey table of a model trained on generated rows.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>

#include "data/passkey_source.h"
#include "data/seconds_since.h"
#include "distributed/world.h"
#include "trainer/commands.h"
#include "trainer/exit_codes.h"
#include "trainer/loaded_model.h"
#include "trainer/option_checks.h"
#include "trainer/passkey_table.h"
#include "trainer/perplexity.h"
#include "trainer/progress.h"
#include "trainer/summaries.h"
#include "trainer/summary_loss.h"
#include "trainer/text_file.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

struct EvaluateOptions {
  std::string path;
  std::vector<std::string> overrides;
  std::string store;
  std::string split = "test";
  std::string output;
  std::int64_t words = 0;  // of the split, in place of those the store counts
  bool memory_off = false;
  std::string metric = "perplexity", texts;
};

// One line that follows the documents while they are read.
class DocumentProgress {
 public:
  explicit DocumentProgress(Device device) : device_(device) {}

  void operator()(std::int64_t documents, std::int64_t tokens) {
    line_.draw([&] {
      const double seconds = seconds_since(begin_);
      return text(documents, " documents, ", count_text(static_cast<double>(tokens)), " tokens, ",
                  count_text(static_cast<double>(tokens) / std::max(seconds, 1e-3)), " tok/s, ",
                  bytes_text(memory_statistics(device_).peak_bytes));
    });
  }

  void finish() { line_.finish(); }

 private:
  Device device_;
  RedrawnLine line_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// Both write the figures where they are asked for, and say what holding them took.
void report(const EvaluateOptions& options, const LoadedModel& loaded, const std::string& figures,
            const std::string& json) {
  fmt::print("{}", figures);
  fmt::print("peak memory {}\n", bytes_text(memory_statistics(loaded.model->device()).peak_bytes));
  if (!options.output.empty()) write_text(options.output, json);
}

void evaluate_documents(const EvaluateOptions& options, const LoadedModel& loaded,
                        const TokenStore& store) {
  check<ConfigError>(options.words == 0 || loaded.config.evaluate.document_tokens == 0,
                     "--words counts whole documents, but evaluate.document_tokens is ",
                     loaded.config.evaluate.document_tokens,
                     "; expected 0, which reads them whole");
  DocumentProgress progress(loaded.model->device());
  PerplexityReport found = measure_perplexity(
      *loaded.model, store, perplexity_options(loaded.config.evaluate), std::ref(progress));
  progress.finish();
  if (options.words > 0) found.words = options.words;
  report(options, loaded, format_perplexity(found), perplexity_json(found));
}

void evaluate_examples(const EvaluateOptions& options, const LoadedModel& loaded,
                       std::shared_ptr<const TokenStore> store) {
  check<ConfigError>(options.words == 0,
                     "--words counts the words of documents, but data.source is examples");
  const ExampleRows rows(ExampleStore::of(std::move(store)), loaded.config.data.examples);
  DocumentProgress progress(loaded.model->device());
  const SummaryLossReport found = measure_summaries(
      *loaded.model, rows, perplexity_options(loaded.config.evaluate), std::ref(progress));
  progress.finish();
  report(options, loaded, format_summary_loss(found), summary_loss_json(found));
}

// Summaries are written of the documents and compared with those there.
void evaluate_texts(const EvaluateOptions& options, const LoadedModel& loaded,
                    std::shared_ptr<const TokenStore> store) {
  const ExampleRows examples(ExampleStore::of(std::move(store)), loaded.config.data.examples);
  std::function<void(const WrittenSummary&)> on_written;
  if (!options.texts.empty()) on_written = texts_in(options.texts);
  const SummaryReport found =
      write_summaries(*loaded.model, examples, loaded.config.evaluate,
                      static_cast<std::uint64_t>(loaded.config.seed), {}, on_written);
  report(options, loaded, format_scores(found), scores_json(found).dump(2) + "\n");
}

int evaluate(const EvaluateOptions& options) {
  const World world;
  world.require_single("evaluate");
  check_destination("--output", options.output);
  LoadedModel loaded = load_model(options.path, options.overrides);
  check<ConfigError>(loaded.tokenizer != nullptr, loaded.checkpoint.string(),
                     " holds no tokenizer");
  loaded.model->use_memory(!options.memory_off);
  fmt::print("{} (step {}){}\n", loaded.checkpoint.string(), loaded.step,
             options.memory_off ? ", memory off" : "");

  if (loaded.config.data.source == DataKind::kPasskey && options.store.empty() &&
      options.metric == "perplexity") {
    const std::vector<PasskeyCell> cells =
        passkey_table(*loaded.model, *loaded.tokenizer, loaded.config);
    fmt::print("{}", format_passkey_table(cells, loaded.config));
    if (!options.output.empty()) write_text(options.output, passkey_json(cells));
    return kExitDone;
  }

  const fs::path folder = options.store.empty() ? loaded.config.data.store : options.store;
  const fs::path file = folder / (options.split + ".h5");
  check<ConfigError>(fs::exists(file), file.string(), " does not exist; see --store and --split");
  const auto store = TokenStore::open(file);
  store->require_tokenizer(*loaded.tokenizer, loaded.checkpoint.string());
  if (options.metric == "rouge")
    evaluate_texts(options, loaded, store);
  else if (loaded.config.data.source == DataKind::kExamples)
    evaluate_examples(options, loaded, store);
  else
    evaluate_documents(options, loaded, *store);
  return kExitDone;
}

}  // namespace

void add_evaluate(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<EvaluateOptions>();
  CLI::App* command = app.add_subcommand(
      "evaluate",
      "perplexity of whole documents read with the memory carried, of summaries after their "
      "documents (data.source examples), or the passkey table");
  command
      ->add_option("checkpoint", options->path, "a checkpoint, or a run whose newest one is taken")
      ->required();
  command->add_option("overrides", options->overrides, "key=value on top of its configuration");
  command->add_option("--store", options->store,
                      "folder of token stores; default: the one it was trained on");
  command->add_option("--split", options->split, "train, validation or test")
      ->capture_default_str();
  command->add_option("--output", options->output, "also write the figures to this JSON file");
  command
      ->add_option("--words", options->words,
                   "words of the split for word perplexity, in place of those the store counts")
      ->check(at_least(1));
  command
      ->add_option("--metric", options->metric,
                   "perplexity, or rouge: summaries of an example store are written, see "
                   "evaluate.summaries, and compared with those there")
      ->check(CLI::IsMember({"perplexity", "rouge"}))
      ->capture_default_str();
  command->add_option("--texts", options->texts, "folder for the summaries that rouge writes");
  command->add_flag(
      "--memory-off", options->memory_off,
      "no segment reads what those before it left: every gate closed, no cache, memory "
      "tokens as at a document's start");
  command->callback([options, &exit_code] { exit_code = evaluate(*options); });
}

}  // namespace infini
