// Cells of Table 4: ROUGE of the summaries that a trained model writes of documents it reads as far
// as so many tokens.
#pragma once

#include "distributed/communicator.h"
#include "trainer/loaded_model.h"
#include "trainer/reproduce_results.h"

namespace infini {

// {document_tokens, memory} for each input length, the memory as trained and, where there is one,
// forced off.
std::vector<nlohmann::ordered_json> summary_cells(const TableSummariesConfig& table,
                                                  bool has_memory);

// Of the test split in `examples`, decoded as evaluate.summaries of the run says. Figures: what
// scores_json() has. Cost: tokens and seconds of reading and writing, peak_bytes. Texts go to
// <directory>/summaries/<input length>[-memory-off]/<document>.txt, unedited. Ranks divide the
// documents.
MeasuredCell measure_written_summaries(const LoadedModel& loaded,
                                       const nlohmann::ordered_json& cell,
                                       const std::filesystem::path& examples,
                                       const std::filesystem::path& directory,
                                       const Communicator& all);

}  // namespace infini
