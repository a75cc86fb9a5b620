#include "trainer/summaries.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <list>
#include <map>

#include "data/seconds_since.h"
#include "tensor/allocator.h"
#include "tensor/system_memory.h"
#include "trainer/generation.h"
#include "trainer/text_file.h"
#include "trainer/written_text.h"

namespace infini {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr std::size_t kKinds = kRougeKinds.size();

// A document and its examples.
struct Task {
  std::int64_t document = 0;
  std::vector<std::int64_t> examples;
};

// In the order of the store. A document that stands there as a book and as a chapter is one.
std::vector<Task> tasks_of(const ExampleRows& rows, std::int64_t most) {
  std::vector<Task> tasks;
  std::map<std::int64_t, std::size_t> known;
  for (std::int64_t i = 0; i < rows.size(); ++i) {
    const std::int64_t document = rows.store().examples()[static_cast<std::size_t>(i)].document;
    const auto [place, is_new] = known.emplace(document, tasks.size());
    if (is_new) tasks.push_back({.document = document, .examples = {}});
    tasks[place->second].examples.push_back(i);
  }
  if (most > 0 && most < static_cast<std::int64_t>(tasks.size()))
    tasks.resize(static_cast<std::size_t>(most));
  return tasks;
}

GenerationOptions options_of(const SummariesConfig& config, const Tokenizer& tokenizer,
                             std::uint64_t seed) {
  return {
      .sampling = {.temperature = config.temperature, .top_k = config.top_k, .top_p = config.top_p},
      .repetition = {.penalty = config.repetition_penalty,
                     .no_repeat_ngram = config.no_repeat_ngram},
      .max_tokens = config.tokens,
      .stop_tokens = {tokenizer.end_of_text()},
      .seed = seed,
      .rows_at_once = config.at_once};
}

// F of every reference, [references][kinds], without stems and then with them. Ranks fill in the
// references of their documents.
class Scores {
 public:
  explicit Scores(const std::vector<Task>& tasks) {
    for (const Task& task : tasks) {
      first_.push_back(count_);
      count_ += task.examples.size();
    }
    values_.resize(2 * kKinds * count_);
  }

  void add(std::size_t task, std::size_t reference, const std::string& wanted,
           const std::string& written) {
    for (const bool stem : {false, true}) {
      const RougeScores scores = rouge(wanted, written, stem);
      for (std::size_t k = 0; k < kKinds; ++k)
        values_[place(stem, first_[task] + reference, k)] = scores[k].f;
    }
  }
  void sum_over(const Communicator& ranks) { values_ = ranks.sum(values_); }

  SummaryScores summary(bool stem, std::uint64_t seed) const {
    SummaryScores scores{.documents = static_cast<std::int64_t>(first_.size()),
                         .references = static_cast<std::int64_t>(count_)};
    for (std::size_t k = 0; k < kKinds; ++k) {
      std::vector<double> values;
      for (std::size_t i = 0; i < count_; ++i) values.push_back(values_[place(stem, i, k)]);
      scores.rouge[k] = bootstrap_mean(values, seed);
    }
    scores.geometric_mean =
        rouge_geometric_mean(scores.rouge[0].mean, scores.rouge[1].mean, scores.rouge[2].mean);
    return scores;
  }

 private:
  std::size_t place(bool stem, std::size_t reference, std::size_t kind) const {
    return ((stem ? count_ : 0) + reference) * kKinds + kind;
  }

  std::vector<std::size_t> first_;  // reference of each task
  std::size_t count_ = 0;
  std::vector<double> values_;
};

Json json_of(const SummaryScores& scores) {
  Json json{{"documents", scores.documents}, {"references", scores.references}};
  for (std::size_t k = 0; k < kKinds; ++k)
    json[name_of(kRougeKinds[k])] = {{"mean", scores.rouge[k].mean},
                                     {"low", scores.rouge[k].low},
                                     {"high", scores.rouge[k].high}};
  json["geometric_mean"] = scores.geometric_mean;
  return json;
}

}  // namespace

SummaryReport write_summaries(const InfiniTransformer& model, const ExampleRows& examples,
                              const EvaluateConfig& config, std::uint64_t seed,
                              const Communicator& ranks,
                              const std::function<void(const WrittenSummary&)>& on_written) {
  const std::vector<Task> tasks = tasks_of(examples, config.summaries.documents);
  check<DataError>(!tasks.empty(), examples.store().path().string(), ": holds no example");
  const Tokenizer& tokenizer = examples.store().tokenizer();
  const GenerationOptions options = options_of(config.summaries, tokenizer, seed);
  std::vector<std::size_t> mine;
  for (std::size_t i = 0; i < tasks.size(); ++i)
    if (i % static_cast<std::size_t>(ranks.size()) == static_cast<std::size_t>(ranks.rank()))
      mine.push_back(i);

  SummaryReport report;
  Scores scores(tasks);
  reset_peak(model.device());
  const auto at_once = static_cast<std::size_t>(config.summaries.at_once);
  for (std::size_t first = 0; first < mine.size(); first += at_once) {
    const std::size_t count = std::min(at_once, mine.size() - first);
    std::list<Sequence> sequences;
    std::vector<ContinuationOf> wanted;
    std::vector<std::int64_t> prompt_tokens;
    const Clock::time_point reading = Clock::now();
    for (const std::size_t i : std::span(mine).subspan(first, count)) {
      const std::vector<std::int32_t> prompt =
          examples.prompt(tasks[i].examples.front(), config.document_tokens);
      Sequence& sequence = sequences.emplace_back(model);
      const auto on_read = [](std::int64_t) { note_progress(); };
      sequence.give(prompt, on_read);
      sequence.catch_up(on_read);
      prompt_tokens.push_back(static_cast<std::int64_t>(prompt.size()));
      report.prompt_tokens += prompt_tokens.back();
      wanted.push_back({.sequence = &sequence, .stream = i});
    }
    synchronize(model.device());
    report.reading_seconds += seconds_since(reading);

    const Clock::time_point writing = Clock::now();
    const auto on_token = [](std::size_t, std::int32_t) {
      note_progress();
      return true;
    };
    const std::vector<Continuation> drawn = continuations(wanted, options, on_token);
    report.writing_seconds += seconds_since(writing);
    for (std::size_t j = 0; j < count; ++j) {
      const Task& task = tasks[mine[first + j]];
      report.written_tokens += static_cast<std::int64_t>(drawn[j].tokens.size());
      WrittenText summary(tokenizer, tokenizer.end_of_text(), {});
      for (const std::int32_t token : drawn[j].tokens) summary.add(token);
      summary.finish();
      const std::string& text = summary.text();
      for (std::size_t r = 0; r < task.examples.size(); ++r)
        scores.add(mine[first + j], r, examples.reference(task.examples[r]), text);
      if (on_written)
        on_written({.document = task.document, .prompt_tokens = prompt_tokens[j], .text = text});
    }
  }
  scores.sum_over(ranks);
  const std::vector<double> sums = ranks.sum({static_cast<double>(report.prompt_tokens),
                                              static_cast<double>(report.written_tokens),
                                              report.reading_seconds, report.writing_seconds});
  report.prompt_tokens = static_cast<std::int64_t>(sums[0]);
  report.written_tokens = static_cast<std::int64_t>(sums[1]);
  report.reading_seconds = sums[2];
  report.writing_seconds = sums[3];
  report.peak_bytes = memory_statistics(model.device()).peak_bytes;
  report.plain = scores.summary(false, seed);
  report.stemmed = scores.summary(true, seed);
  return report;
}

std::function<void(const WrittenSummary&)> texts_in(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  return [folder](const WrittenSummary& written) {
    write_text(folder / text(written.document, ".txt"), written.text + "\n");
  };
}

Json scores_json(const SummaryReport& report) {
  Json json = json_of(report.plain);
  json["stemmed"] = json_of(report.stemmed);
  return json;
}

std::string format_scores(const SummaryReport& report) {
  std::string out = fmt::format("{} documents, {} references\n{:<20}", report.plain.documents,
                                report.plain.references, "ROUGE in %");
  for (const RougeKind kind : kRougeKinds) out += fmt::format("{:>22}", name_of(kind));
  out += fmt::format("{:>10}\n", "overall");
  const auto add = [&](const char* words, const SummaryScores& scores) {
    out += fmt::format("{:<20}", words);
    for (const Interval& value : scores.rouge)
      out += fmt::format("{:>22}", fmt::format("{:.2f} ({:.2f} to {:.2f})", 100 * value.mean,
                                               100 * value.low, 100 * value.high));
    out += fmt::format("{:>10.2f}\n", 100 * scores.geometric_mean);
  };
  add("words", report.plain);
  add("stems", report.stemmed);
  return out + fmt::format("read {} tokens in {:.1f} s, wrote {} in {:.1f} s\n",
                           report.prompt_tokens, report.reading_seconds, report.written_tokens,
                           report.writing_seconds);
}

}  // namespace infini
