// Perplexity of whole documents, each read from its first token to its last with the memory
// carried.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "data/token_store.h"
#include "distributed/communicator.h"
#include "model/recurrence.h"
#include "trainer/run_config.h"

namespace infini {

struct PerplexityOptions {
  std::int64_t segments_at_once = 8;
  std::int64_t document_tokens = 0;  // of a document that are read; 0: all
  int share = 0, shares = 1;         // of ranks that divide the documents: this one's, and how many
};
PerplexityOptions perplexity_options(const EvaluateConfig& config);

// Sums in fp64.
struct PerplexityReport {
  struct Part {
    std::int64_t tokens = 0;
    double nll = 0;
  };
  std::int64_t documents = 0, tokens = 0, bytes = 0, words = 0;
  double nll = 0;     // nats
  bool whole = true;  // every document was read to its end, so that words and bytes belong to nll
  std::vector<Part> parts;  // by index of the segment in its document

  double token_perplexity() const;  // exp(nll / tokens)
  double word_perplexity() const;   // exp(nll / words)
  double byte_perplexity() const;   // exp(nll / bytes)
  double bits_per_byte() const;     // nll / (bytes log 2)
};

// progress(documents done, tokens done) is called now and then. What is held does not grow with the
// documents.
PerplexityReport measure_perplexity(
    const InfiniTransformer& model, const TokenStore& store, const PerplexityOptions& options,
    const std::function<void(std::int64_t, std::int64_t)>& progress = {});

// The reports of ranks that divided the documents as one, on each of them.
PerplexityReport over_ranks(const PerplexityReport& mine, const Communicator& ranks);
// Such a report: each rank has the whole model and reads its share of the documents.
PerplexityReport measure_perplexity(const InfiniTransformer& model, const TokenStore& store,
                                    PerplexityOptions options, const Communicator& ranks);

// For the terminal: the figures, and perplexity by segment index in groups 0, 1, 2-3, 4-7, ...
std::string format_perplexity(const PerplexityReport& report);
// The same as one JSON object.
std::string perplexity_json(const PerplexityReport& report);

}  // namespace infini
