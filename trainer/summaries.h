// Summaries that a model writes of documents it has read, and their ROUGE against those of people.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "data/example_rows.h"
#include "distributed/communicator.h"
#include "model/transformer.h"
#include "trainer/rouge.h"
#include "trainer/run_config.h"

namespace infini {

struct WrittenSummary {
  std::int64_t document = 0;  // index in the store
  std::int64_t prompt_tokens =
      0;  // that were read: the document, as much as was wanted, and the prompt
  std::string text;
};

// Figures over the references of all documents: a document with several has as many rows, each
// compared with the one text that was written of it.
struct SummaryScores {
  std::int64_t documents = 0, references = 0;
  std::array<Interval, kRougeKinds.size()> rouge{};  // F, in the order of kRougeKinds
  double geometric_mean = 0;                         // of the means of ROUGE-1, 2 and L
};

struct SummaryReport {
  SummaryScores plain, stemmed;  // words as they are, and cut to their stems
  std::int64_t prompt_tokens = 0, written_tokens = 0;
  double reading_seconds = 0, writing_seconds = 0;  // of all ranks together
  std::int64_t peak_bytes = 0;                      // of this rank
};

// Reads every document of the store once, as far as config.document_tokens, and as
// config.summaries says draws a summary of
// each with a stream of its own, so that neither what is written beside it nor the number of ranks
// matters, but for the rounding of logits. Ranks, each with the whole model, divide the documents;
// `on_written` hears of this rank's. The model's memory is used as it stands.
SummaryReport write_summaries(const InfiniTransformer& model, const ExampleRows& examples,
                              const EvaluateConfig& config, std::uint64_t seed,
                              const Communicator& ranks = {},
                              const std::function<void(const WrittenSummary&)>& on_written = {});

// Writes each text as it is to <folder>/<document>.txt; makes the folder.
std::function<void(const WrittenSummary&)> texts_in(const std::filesystem::path& folder);

// {documents, references, rouge1: {mean, low, high}, ..., geometric_mean, and `stemmed` likewise}:
// nothing that differs from run to run.
nlohmann::ordered_json scores_json(const SummaryReport& report);
// For the terminal, in percent.
std::string format_scores(const SummaryReport& report);

}  // namespace infini
