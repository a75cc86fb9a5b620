// The loss of summaries given their documents, each document read with the memory carried.
#pragma once

#include <array>
#include <functional>
#include <string>

#include "data/example_rows.h"
#include "distributed/communicator.h"
#include "model/transformer.h"
#include "trainer/perplexity.h"

namespace infini {

// Sums in fp64, of summaries and the end_of_text behind them as examples.summary_tokens cuts them.
struct SummaryLossReport {
  struct Part {
    std::int64_t examples = 0, tokens = 0;
    double nll = 0;  // nats

    double perplexity() const;  // exp(nll / tokens)
  };
  std::array<Part, kSummaryLevels> levels;  // by SummaryLevel
  std::int64_t read_tokens = 0;             // of whole rows

  Part all() const;
};

// Reads options.document_tokens of each document at most (0: all), options.segments_at_once
// segments at a time: what the device holds does not grow with them; the host holds the ids of one
// row. progress(examples done, tokens read) is called now and then. Throws ConfigError where the
// model's vocabulary is too small.
SummaryLossReport measure_summaries(
    const InfiniTransformer& model, const ExampleRows& rows, const PerplexityOptions& options,
    const std::function<void(std::int64_t, std::int64_t)>& progress = {});

// The same where ranks divide the examples; the report is of all of them, on each.
SummaryLossReport measure_summaries(const InfiniTransformer& model, const ExampleRows& rows,
                                    PerplexityOptions options, const Communicator& ranks);

// For the terminal, and as one JSON object.
std::string format_summary_loss(const SummaryLossReport& report);
std::string summary_loss_json(const SummaryLossReport& report);

}  // namespace infini
