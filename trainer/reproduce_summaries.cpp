#include "trainer/reproduce_summaries.h"

#include <spdlog/spdlog.h>

#include "trainer/summaries.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

}  // namespace

std::vector<Json> summary_cells(const TableSummariesConfig& table, bool has_memory) {
  std::vector<Json> cells;
  for (const std::int64_t tokens : table.document_tokens)
    for (const bool memory : {true, false})
      if (memory || has_memory) cells.push_back({{"document_tokens", tokens}, {"memory", memory}});
  return cells;
}

MeasuredCell measure_written_summaries(const LoadedModel& loaded, const Json& cell,
                                       const fs::path& examples, const fs::path& directory,
                                       const Communicator& all) {
  const auto store = ExampleStore::open(examples / "test.h5");
  store->documents()->require_tokenizer(*loaded.tokenizer, loaded.checkpoint.string());
  const bool memory = cell.at("memory");
  EvaluateConfig config = loaded.config.evaluate;
  config.document_tokens = cell.at("document_tokens");
  const std::string input = input_text(config.document_tokens);
  const fs::path folder = directory / "summaries" / (input + (memory ? "" : "-memory-off"));

  loaded.model->use_memory(memory);
  const SummaryReport report =
      write_summaries(*loaded.model, ExampleRows(store, loaded.config.data.examples), config,
                      static_cast<std::uint64_t>(loaded.config.seed), all, texts_in(folder));
  spdlog::info("{}: summaries of {} documents, {} of each{}: ROUGE-1 {:.2f}, 2 {:.2f}, L {:.2f} %",
               loaded.config.directory, report.plain.documents, input, memory ? "" : ", memory off",
               100 * report.plain.rouge[0].mean, 100 * report.plain.rouge[1].mean,
               100 * report.plain.rouge[2].mean);
  return {.figures = scores_json(report),
          .cost = {{"prompt_tokens", report.prompt_tokens},
                   {"reading_seconds", report.reading_seconds},
                   {"written_tokens", report.written_tokens},
                   {"writing_seconds", report.writing_seconds},
                   {"peak_bytes", report.peak_bytes}}};
}

}  // namespace infini
