#include "trainer/perplexity.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "trainer/document_scores.h"

namespace infini {
namespace {

struct Group {
  std::size_t first, last;
  PerplexityReport::Part sum;
};

// Segments 0, 1, 2-3, 4-7, 8-15, ... of all documents.
std::vector<Group> groups(const PerplexityReport& report) {
  std::vector<Group> result;
  for (std::size_t first = 0; first < report.parts.size();
       first = std::max<std::size_t>(1, 2 * first)) {
    Group group{.first = first,
                .last = std::min(std::max<std::size_t>(1, 2 * first), report.parts.size()) - 1,
                .sum = {}};
    for (std::size_t i = group.first; i <= group.last; ++i) {
      group.sum.tokens += report.parts[i].tokens;
      group.sum.nll += report.parts[i].nll;
    }
    result.push_back(group);
  }
  return result;
}

void measure_document(const InfiniTransformer& model, const TokenStore& store,
                      const StoredDocument& document, const PerplexityOptions& options,
                      PerplexityReport& report) {
  const std::int64_t segment = model.config().segment_tokens;
  const std::int64_t scored = options.document_tokens > 0
                                  ? std::min(options.document_tokens, document.scored_tokens())
                                  : document.scored_tokens();
  const auto read = [&](std::int64_t begin, std::span<std::int32_t> out) {
    store.read(document.begin + begin, out);
  };
  const auto add = [&](std::int64_t begin, std::span<const std::int32_t> targets,
                       std::span<const double> nll) {
    for (std::size_t t = 0; t < targets.size(); ++t) {
      const auto index = (static_cast<std::size_t>(begin) + t) / static_cast<std::size_t>(segment);
      if (report.parts.size() <= index) report.parts.resize(index + 1);
      report.parts[index].tokens += 1;
      report.parts[index].nll += nll[t];
      report.nll += nll[t];
    }
    note_progress();
  };
  score_document(model, scored, options.segments_at_once, read, add);
  report.tokens += scored;
  report.whole = report.whole && scored == document.scored_tokens();
}

}  // namespace

double PerplexityReport::token_perplexity() const {
  return std::exp(nll / static_cast<double>(tokens));
}
double PerplexityReport::word_perplexity() const {
  return std::exp(nll / static_cast<double>(words));
}
double PerplexityReport::byte_perplexity() const {
  return std::exp(nll / static_cast<double>(bytes));
}
double PerplexityReport::bits_per_byte() const {
  return nll / (static_cast<double>(bytes) * std::log(2.0));
}

PerplexityOptions perplexity_options(const EvaluateConfig& config) {
  return {.segments_at_once = config.segments_at_once, .document_tokens = config.document_tokens};
}

PerplexityReport measure_perplexity(
    const InfiniTransformer& model, const TokenStore& store, const PerplexityOptions& options,
    const std::function<void(std::int64_t, std::int64_t)>& progress) {
  check<ConfigError>(store.vocabulary() <= model.config().vocabulary, store.path().string(),
                     " has token ids up to ", store.vocabulary() - 1,
                     ", the model's vocabulary is ", model.config().vocabulary);
  PerplexityReport report;
  const std::vector<StoredDocument>& documents = store.documents();
  for (std::size_t i = static_cast<std::size_t>(options.share); i < documents.size();
       i += static_cast<std::size_t>(options.shares)) {
    const StoredDocument& document = documents[i];
    measure_document(model, store, document, options, report);
    ++report.documents;
    report.bytes += document.bytes;
    report.words += document.words;
    if (progress) progress(report.documents, report.tokens);
  }
  check<DataError>(report.tokens > 0 || options.shares > 1, store.path().string(),
                   " holds no document to score");
  return report;
}

PerplexityReport over_ranks(const PerplexityReport& mine, const Communicator& ranks) {
  if (ranks.size() == 1) return mine;
  std::size_t parts = 0;
  for (const double count : ranks.gather(static_cast<double>(mine.parts.size())))
    parts = std::max(parts, static_cast<std::size_t>(count));
  std::vector<double> numbers{static_cast<double>(mine.documents),
                              static_cast<double>(mine.tokens),
                              static_cast<double>(mine.bytes),
                              static_cast<double>(mine.words),
                              mine.nll,
                              mine.whole ? 0.0 : 1.0};
  const std::size_t first = numbers.size();
  numbers.resize(first + 2 * parts);
  for (std::size_t i = 0; i < mine.parts.size(); ++i) {
    numbers[first + 2 * i] = static_cast<double>(mine.parts[i].tokens);
    numbers[first + 2 * i + 1] = mine.parts[i].nll;
  }
  numbers = ranks.sum(numbers);
  const auto count = [&](std::size_t i) { return static_cast<std::int64_t>(numbers[i]); };
  PerplexityReport all{.documents = count(0),
                       .tokens = count(1),
                       .bytes = count(2),
                       .words = count(3),
                       .nll = numbers[4],
                       .whole = numbers[5] == 0,
                       .parts = {}};
  for (std::size_t i = 0; i < parts; ++i)
    all.parts.push_back({.tokens = count(first + 2 * i), .nll = numbers[first + 2 * i + 1]});
  check<DataError>(all.tokens > 0, "the validation split holds no document to score");
  return all;
}

PerplexityReport measure_perplexity(const InfiniTransformer& model, const TokenStore& store,
                                    PerplexityOptions options, const Communicator& ranks) {
  options.share = ranks.rank();
  options.shares = ranks.size();
  return over_ranks(measure_perplexity(model, store, options), ranks);
}

std::string format_perplexity(const PerplexityReport& report) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(4) << "documents " << report.documents << ", tokens "
      << report.tokens << '\n'
      << "token perplexity " << report.token_perplexity() << '\n';
  if (report.whole)
    out << "word perplexity  " << report.word_perplexity() << "  (" << report.words << " words)\n"
        << "byte perplexity  " << report.byte_perplexity() << "  (" << report.bytes << " bytes)\n"
        << "bits per byte    " << report.bits_per_byte() << '\n';
  out << "by segment of the document:\n";
  for (const Group& group : groups(report)) {
    const std::string range =
        group.first == group.last ? text(group.first) : text(group.first, "-", group.last);
    out << "  " << std::setw(11) << range << std::setw(12)
        << std::exp(group.sum.nll / static_cast<double>(group.sum.tokens)) << "  ("
        << group.sum.tokens << " tokens)\n";
  }
  return out.str();
}

std::string perplexity_json(const PerplexityReport& report) {
  nlohmann::ordered_json json{{"documents", report.documents},
                              {"tokens", report.tokens},
                              {"nll", report.nll},
                              {"token_perplexity", report.token_perplexity()}};
  if (report.whole) {
    json["words"] = report.words;
    json["bytes"] = report.bytes;
    json["word_perplexity"] = report.word_perplexity();
    json["byte_perplexity"] = report.byte_perplexity();
    json["bits_per_byte"] = report.bits_per_byte();
  }
  for (const Group& group : groups(report))
    json["by_segment"].push_back(
        {{"first", group.first},
         {"last", group.last},
         {"tokens", group.sum.tokens},
         {"token_perplexity", std::exp(group.sum.nll / static_cast<double>(group.sum.tokens))}});
  return json.dump(2) + "\n";
}

}  // namespace infini
