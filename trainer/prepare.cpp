// `infini prepare`: a corpus of text to token stores.
#include "data/prepare.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/seconds_since.h"
#include "distributed/world.h"
#include "tensor/enum_names.h"
#include "tensor/error.h"
#include "trainer/commands.h"
#include "trainer/directory_lock.h"
#include "trainer/exit_codes.h"
#include "trainer/progress.h"

namespace infini {
namespace {

using Clock = std::chrono::steady_clock;

// One line for each stage, redrawn at most ten times a second.
class StageLine {
 public:
  void update(const PrepareProgress& progress) {
    if (progress.stage != stage_) {
      finish();
      stage_ = progress.stage;
      started_ = Clock::now();
      line_.emplace();
    }
    line_->draw([&] {
      const double seconds = seconds_since(started_);
      return text(stage_, ": ", progress.documents, " documents, ", bytes_text(progress.bytes),
                  ", ",
                  bytes_text(static_cast<std::int64_t>(static_cast<double>(progress.bytes) /
                                                       std::max(seconds, 1e-3))),
                  "/s");
    });
  }
  void finish() { line_.reset(); }

 private:
  std::string stage_;
  Clock::time_point started_;
  std::optional<RedrawnLine> line_;
};

// Examples of a split by level, and what was lost on the way, with the first missing files.
void print_examples(const PreparedSplit& split) {
  constexpr std::size_t kShown = 3;
  const SummaryCounts& found = split.summaries;
  std::string line =
      text(split.examples, " examples, ", split.summary_tokens, " tokens of summary");
  for (const auto& [name, level] : enum_names(SummaryLevel{})) {
    const auto i = static_cast<std::size_t>(level);
    if (found.listed[i] > 0) line += text("; ", name, " ", found.given[i], " of ", found.listed[i]);
  }
  if (const std::string lost = found.summary(); !lost.empty()) line += "; " + lost;
  std::printf("%-12s %s\n", split.name.c_str(), line.c_str());
  for (std::size_t i = 0; i < std::min(kShown, found.missing.size()); ++i)
    std::printf("%-12s missing: %s\n", split.name.c_str(), found.missing[i].c_str());
}

void print(const PrepareReport& report) {
  std::printf("tokenizer  %s  %d pieces  hash %s  trained in %s\n", report.tokenizer.c_str(),
              report.vocabulary, report.tokenizer_hash.c_str(),
              duration_text(report.tokenizer_seconds).c_str());
  std::printf("%-12s %10s %9s %14s %12s %14s %12s %10s %12s\n", "split", "documents", "skipped",
              "bytes", "words", "tokens", "bytes/token", "seconds", "MB/s/core");
  const auto wide = [](std::int64_t count) { return static_cast<long long>(count); };
  for (const PreparedSplit& split : report.splits)
    std::printf("%-12s %10lld %9lld %14lld %12lld %14lld %12.3f %10.1f %12.2f\n",
                split.name.c_str(), wide(split.documents), wide(split.read.skipped()),
                wide(split.bytes), wide(split.words), wide(split.tokens), split.bytes_per_token(),
                split.seconds, split.encode_rate() / 1e6);
  for (const PreparedSplit& split : report.splits)
    if (split.summaries.listed_pairs() > 0)
      print_examples(split);
    else if (const std::string found = split.read.summary(); !found.empty())
      std::printf("%-12s %s\n", split.name.c_str(), found.c_str());
  if (!report.missing.empty())
    std::printf("%-12s %s\n", "missing", text("all listed in ", report.missing.string()).c_str());
}

// What the command line names by words.
struct Words {
  std::string format = "auto", tokenizer = "sentencepiece", broken = "refuse", utf8 = "keep",
              level = "both";
};

int run(PrepareOptions options, const Words& words) {
  World().require_single("prepare");
  options.format = value_of<CorpusFormat>(words.format).value();
  options.broken = value_of<OnFault>(words.broken).value();
  options.invalid_utf8 = value_of<OnFault>(words.utf8).value();
  options.level = value_of<WantedLevels>(words.level).value();
  if (words.tokenizer == "byte" || words.tokenizer == "bytes") {
    options.tokenizer = TokenizerKind::kByte;
  } else if (words.tokenizer != "sentencepiece") {
    options.tokenizer_file = words.tokenizer;
  }
  options.validate();
  check<ConfigError>(std::filesystem::exists(options.corpus), options.corpus,
                     ": no such corpus; expected a folder or a file");

  const DirectoryLock held = DirectoryLock::take("--output", options.output);
  StageLine line;
  const PrepareReport report =
      prepare(options, [&](const PrepareProgress& progress) { line.update(progress); });
  line.finish();
  print(report);
  return kExitDone;
}

}  // namespace

void add_prepare(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "prepare", "Turn a corpus of text into token stores, training a tokenizer if none is given.");
  const auto options = std::make_shared<PrepareOptions>();
  const auto words = std::make_shared<Words>();
  command
      ->add_option("--input", options->corpus,
                   "folder or file of texts: PG19's layout, .txt or .jsonl, BookSum's tree or its "
                   "copies, plain, .gz or .zst")
      ->required();
  command->add_option("--output", options->output, "folder for the token stores and the tokenizer")
      ->required();
  command
      ->add_option("--format", words->format,
                   "layout of the corpus; auto looks at what is there; booksum makes examples of "
                   "documents with summaries and looks which form they have")
      ->check(CLI::IsMember(names_of<CorpusFormat>()))
      ->capture_default_str();
  command
      ->add_option("--tokenizer", words->tokenizer,
                   "sentencepiece: train a lossless one; byte: a token per byte; or a file to use")
      ->capture_default_str();
  command->add_option("--vocabulary", options->vocabulary, "pieces of a trained tokenizer")
      ->capture_default_str();
  command
      ->add_option("--sample-bytes", options->sample_bytes,
                   "text to train the tokenizer on, in bytes")
      ->capture_default_str();
  command->add_option("--threads", options->threads, "encoding threads; 0: one per core")
      ->capture_default_str();
  command
      ->add_option("--where", options->where,
                   "key=value that a JSON line's `meta` must have to be taken, as config=arxiv; "
                   "may be given again")
      ->expected(1);
  command
      ->add_option("--level", words->level,
                   "summaries of format booksum to take: of books, of chapters, or both")
      ->check(CLI::IsMember(names_of<WantedLevels>()))
      ->capture_default_str();
  command
      ->add_option("--broken", words->broken,
                   "lines that are no document and damaged files: refuse, or skip and count them")
      ->check(CLI::IsMember({"refuse", "skip"}))
      ->capture_default_str();
  command
      ->add_option("--invalid-utf8", words->utf8,
                   "texts that are not UTF-8: keep their bytes, skip, or refuse")
      ->check(CLI::IsMember(names_of<OnFault>()))
      ->capture_default_str();
  command->callback([options, words, &exit_code] { exit_code = run(*options, *words); });
}

}  // namespace infini
