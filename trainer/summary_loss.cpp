#include "trainer/summary_loss.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "trainer/document_scores.h"

namespace infini {

double SummaryLossReport::Part::perplexity() const {
  return std::exp(nll / static_cast<double>(tokens));
}

SummaryLossReport::Part SummaryLossReport::all() const {
  Part sum;
  for (const Part& part : levels) {
    sum.examples += part.examples;
    sum.tokens += part.tokens;
    sum.nll += part.nll;
  }
  return sum;
}

SummaryLossReport measure_summaries(
    const InfiniTransformer& model, const ExampleRows& rows, const PerplexityOptions& options,
    const std::function<void(std::int64_t, std::int64_t)>& progress) {
  const TokenStore& store = *rows.store().documents();
  check<ConfigError>(store.vocabulary() <= model.config().vocabulary, store.path().string(),
                     " has token ids up to ", store.vocabulary() - 1,
                     ", the model's vocabulary is ", model.config().vocabulary);
  SummaryLossReport report;
  for (std::int64_t i = options.share; i < rows.size(); i += options.shares) {
    const ExampleRows::Row row = rows.row(i, options.document_tokens);
    const StoredExample& example = rows.store().examples()[static_cast<std::size_t>(i)];
    SummaryLossReport::Part& part = report.levels[static_cast<std::size_t>(example.level)];
    const auto read = [&](std::int64_t begin, std::span<std::int32_t> out) {
      std::copy_n(row.tokens.begin() + begin, out.size(), out.begin());
    };
    const auto add = [&](std::int64_t begin, std::span<const std::int32_t> targets,
                         std::span<const double> nll) {
      // Target t is token begin + t + 1 of the row.
      const std::int64_t skipped = std::max<std::int64_t>(row.summary_begin - 1 - begin, 0);
      for (auto t = static_cast<std::size_t>(skipped); t < targets.size(); ++t) part.nll += nll[t];
      note_progress();
    };
    const auto scored = static_cast<std::int64_t>(row.tokens.size()) - 1;
    score_document(model, scored, options.segments_at_once, read, add);
    ++part.examples;
    part.tokens += rows.learned_tokens(i);
    report.read_tokens += scored;
    if (progress) progress(report.all().examples, report.read_tokens);
  }
  check<DataError>(report.all().examples > 0 || options.shares > 1, store.path().string(),
                   " holds no example to score");
  return report;
}

SummaryLossReport measure_summaries(const InfiniTransformer& model, const ExampleRows& rows,
                                    PerplexityOptions options, const Communicator& ranks) {
  options.share = ranks.rank();
  options.shares = ranks.size();
  SummaryLossReport report = measure_summaries(model, rows, options);
  if (ranks.size() == 1) return report;
  std::vector<double> numbers{static_cast<double>(report.read_tokens)};
  for (const SummaryLossReport::Part& part : report.levels)
    numbers.insert(numbers.end(), {static_cast<double>(part.examples),
                                   static_cast<double>(part.tokens), part.nll});
  numbers = ranks.sum(numbers);
  const auto count = [&](std::size_t i) { return static_cast<std::int64_t>(numbers[i]); };
  report.read_tokens = count(0);
  for (std::size_t i = 0; i < kSummaryLevels; ++i)
    report.levels[i] = {
        .examples = count(1 + 3 * i), .tokens = count(2 + 3 * i), .nll = numbers[3 + 3 * i]};
  return report;
}

std::string format_summary_loss(const SummaryLossReport& report) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(4);
  const auto line = [&](std::string_view name, const SummaryLossReport::Part& part) {
    out << std::left << std::setw(9) << name << std::right << std::setw(8) << part.examples
        << " examples" << std::setw(12) << part.tokens << " tokens   summary perplexity "
        << part.perplexity() << '\n';
  };
  for (const auto& [name, level] : enum_names(SummaryLevel{}))
    if (const auto& part = report.levels[static_cast<std::size_t>(level)]; part.examples > 0)
      line(name, part);
  line("all", report.all());
  return out.str();
}

std::string summary_loss_json(const SummaryLossReport& report) {
  const auto json_of = [](const SummaryLossReport::Part& part) {
    return nlohmann::ordered_json{{"examples", part.examples},
                                  {"tokens", part.tokens},
                                  {"nll", part.nll},
                                  {"summary_perplexity", part.perplexity()}};
  };
  nlohmann::ordered_json json = json_of(report.all());
  json["read_tokens"] = report.read_tokens;
  for (const auto& [name, level] : enum_names(SummaryLevel{}))
    if (const auto& part = report.levels[static_cast<std::size_t>(level)]; part.examples > 0)
      json["by_level"][std::string(name)] = json_of(part);
  return json.dump(2) + "\n";
}

}  // namespace infini
