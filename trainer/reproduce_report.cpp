#include "trainer/reproduce_report.h"

#include "trainer/reproduce_figures.h"
#include "trainer/reproduce_markdown.h"
#include "trainer/text_file.h"

namespace infini {
namespace {

using Json = nlohmann::ordered_json;

Json spread_json(const CellResults& cell, const Json::json_pointer& figure) {
  const Spread spread = spread_of(values_of(cell, figure));
  if (spread.count == 0) return nullptr;
  return {{"mean", spread.mean}, {"deviation", spread.deviation}, {"seeds", spread.count}};
}

Json cell_json(const CellResults& cell) {
  Json json{{"corpus", cell.corpus}};
  for (const char* how : {"test", "memory_off"})
    for (const char* figure : {"token_perplexity", "word_perplexity", "byte_perplexity"})
      if (const Json spread = spread_json(cell, Json::json_pointer(text("/", how, "/", figure)));
          !spread.is_null())
        json[how][figure] = spread;
  for (const CellResults::Run& run : cell.runs) {
    Json entry{{"seed", run.seed}, {"directory", run.directory}};
    for (const auto& [key, value] : run.result.items())
      if (key != "config") entry[key] = value;
    json["runs"].push_back(entry);
  }
  return json;
}

Json results_json(const Table& table, const std::vector<CellResults>& cells) {
  const std::vector<RowMemory> memories = row_memories(table);
  Json json{{"table", table.name}, {"scale", table.scale}, {"title", table.config.title}};
  for (std::size_t i = 0; i < memories.size(); ++i) {
    const TableRowConfig& row = table.config.rows[i];
    Json entry{{"name", row.name},
               {"title", row.title},
               {"memory_numbers", memories[i].numbers},
               {"compression", memories[i].compression}};
    for (const QuotedConfig& quoted : row.quoted) entry["quoted"][quoted.of] = quoted.value;
    for (const CellResults& cell : cells)
      if (cell.row == row.name && !cell.runs.empty()) entry["corpora"].push_back(cell_json(cell));
    json["rows"].push_back(entry);
  }
  return json;
}

Json timings_json(const std::vector<CellResults>& cells) {
  Json json = Json::object();
  for (const CellResults& cell : cells)
    for (const CellResults::Run& run : cell.runs) json[run.directory] = run.timings;
  return json;
}

}  // namespace

void write_report(const Table& table, const std::vector<CellResults>& cells,
                  const std::filesystem::path& output) {
  std::error_code error;
  std::filesystem::create_directories(output, error);
  check<ConfigError>(!error, "--output: cannot make ", output.string(), ": ", error.message());
  const std::vector<DrawnFigure> figures = draw_figures(table, cells);
  for (const DrawnFigure& figure : figures) write_text(output / figure.file, figure.svg);
  write_text(output / "results.json", results_json(table, cells).dump(2) + "\n");
  if (table.config.kind != TableKind::kMemory)
    write_text(output / "timings.json", timings_json(cells).dump(2) + "\n");
  write_text(output / "table.md", table_markdown(table, cells, figures));
}

}  // namespace infini
