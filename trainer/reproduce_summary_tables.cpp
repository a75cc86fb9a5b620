#include "trainer/reproduce_summary_tables.h"

#include <algorithm>
#include <limits>

#include "trainer/figures.h"
#include "trainer/markdown.h"
#include "trainer/progress.h"
#include "trainer/reproduce_markdown.h"

namespace infini {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kRouges[] = {"rouge1", "rouge2", "rougeL", "rougeLsum"};

// A row's cell in one of its lists; null where it is not there.
const Json* find(const Json& list, std::int64_t document_tokens, bool memory) {
  const auto found = std::ranges::find_if(list, [&](const Json& entry) {
    return entry.at("document_tokens") == document_tokens && entry.at("memory") == memory;
  });
  return found == list.end() ? nullptr : &*found;
}

Spread spread_over_seeds(const CellResults& cell, std::int64_t document_tokens, bool memory,
                         const Json::json_pointer& figure) {
  std::vector<double> values;
  for (const CellResults::Run& run : cell.runs)
    if (const Json* entry = find(run.result.at("summaries"), document_tokens, memory))
      values.push_back(100 * entry->at(figure).get<double>());
  return spread_of(values);
}

// "31.20 (29.81 to 32.56)".
std::string rouge_text(const CellResults& cell, std::int64_t document_tokens, bool memory,
                       const char* rouge) {
  const Spread spread = spread_over_seeds(cell, document_tokens, memory,
                                          Json::json_pointer(text("/", rouge, "/mean")));
  const Json* first = find(cell.runs.front().result.at("summaries"), document_tokens, memory);
  if (spread.count == 0 || !first) return kMarkdownNothing;
  const auto bound = [&](const char* name) {
    return fixed_number(100 * first->at(rouge).at(name).get<double>(), 2);
  };
  return text(fixed_number(spread.mean, 2), " (", bound("low"), " to ", bound("high"), ")");
}

// Rows of the table, of each the input lengths, of each the memory on and off.
template <class Visit>
void for_each_cell(const Table& table, const CorpusConfig& corpus,
                   const std::vector<CellResults>& cells, const Visit& visit) {
  for (const TableRowConfig& row : table.config.rows) {
    const CellResults* cell = find_results(cells, row.name, corpus.name);
    if (!cell) continue;
    for (const std::int64_t tokens : table.config.summaries.document_tokens)
      for (const bool memory : {true, false})
        if (find(cell->runs.front().result.at("summaries"), tokens, memory))
          visit(row, *cell, tokens, memory);
  }
}

std::string scores(const Table& table, const CorpusConfig& corpus,
                   const std::vector<CellResults>& cells) {
  std::string out = "\n### ROUGE, %\n\n" + markdown_head({"model", "input", "ROUGE-1", "ROUGE-2",
                                                          "ROUGE-L", "ROUGE-Lsum", "overall"});
  for_each_cell(
      table, corpus, cells,
      [&](const TableRowConfig& row, const CellResults& cell, std::int64_t tokens, bool memory) {
        MarkdownRow entries{text(row.title, memory ? "" : ", memory off"), input_text(tokens)};
        for (const char* rouge : kRouges)
          entries.push_back(rouge_text(cell, tokens, memory, rouge));
        const Spread overall =
            spread_over_seeds(cell, tokens, memory, Json::json_pointer("/geometric_mean"));
        entries.push_back(fixed_number(overall.mean, 2));
        out += markdown_row(entries);
      });
  for (const TableSummariesConfig::Quoted& quoted : table.config.summaries.quoted)
    out += markdown_row({text(quoted.title, ", quoted"), kMarkdownNothing, quoted.values[0],
                         quoted.values[1], quoted.values[2], kMarkdownNothing, quoted.values[3]});
  return out;
}

std::string rate_text(const Json& cost, const char* tokens, const char* seconds) {
  const double passed = cost.at(seconds);
  return passed > 0 ? count_text(cost.at(tokens).get<double>() / passed) : kMarkdownNothing;
}

std::string costs(const Table& table, const CorpusConfig& corpus,
                  const std::vector<CellResults>& cells) {
  std::string out =
      "\n### Cost\n\n" +
      markdown_head({"model", "input", "parameters", "training tokens", "training seconds",
                     "tokens/s reading", "tokens/s writing", "peak memory"});
  for_each_cell(
      table, corpus, cells,
      [&](const TableRowConfig& row, const CellResults& cell, std::int64_t tokens, bool memory) {
        const CellResults::Run& first = cell.runs.front();
        const Json* cost = find(first.timings.at("summaries"), tokens, memory);
        if (!memory || !cost) return;
        const auto millions = [&](const char* key) {
          return millions_text(first.result.at(key).get<std::int64_t>());
        };
        out += markdown_row({row.title, input_text(tokens), millions("parameters"),
                             millions("training_tokens"),
                             fixed_number(first.timings.at("training_seconds").get<double>(), 0),
                             rate_text(*cost, "prompt_tokens", "reading_seconds"),
                             rate_text(*cost, "written_tokens", "writing_seconds"),
                             bytes_text(cost->at("peak_bytes").get<std::int64_t>())});
      });
  return out;
}

}  // namespace

std::string summary_tables(const Table& table, const CorpusConfig& corpus,
                           const std::vector<CellResults>& cells) {
  return scores(table, corpus, cells) + costs(table, corpus, cells);
}

std::vector<DrawnFigure> summary_figures(const Table& table, const CorpusConfig& corpus,
                                         const std::vector<CellResults>& cells) {
  const std::vector<std::int64_t>& inputs = table.config.summaries.document_tokens;
  LineChart chart{.title = text("ROUGE by how much of a document is read, ", corpus.title),
                  .x_title = "tokens of the document",
                  .y_title = "geometric mean of ROUGE-1, 2 and L, %",
                  .places = {},
                  .lines = {}};
  for (const std::int64_t tokens : inputs) chart.places.push_back(input_text(tokens));
  int colour = 0;
  for (const TableRowConfig& row : table.config.rows) {
    const CellResults* cell = find_results(cells, row.name, corpus.name);
    if (!cell) continue;
    for (const bool memory : {true, false}) {
      LineChart::Line line{.name = text(row.title, memory ? "" : ", memory off"),
                           .values = {},
                           .colour = colour,
                           .dashed = !memory};
      int there = 0;
      for (const std::int64_t tokens : inputs) {
        const Spread spread =
            spread_over_seeds(*cell, tokens, memory, Json::json_pointer("/geometric_mean"));
        there += spread.count;
        line.values.push_back(spread.count > 0 ? spread.mean
                                               : std::numeric_limits<double>::quiet_NaN());
      }
      if (there > 0) chart.lines.push_back(line);
    }
    ++colour;
  }
  if (chart.lines.empty()) return {};
  return {{.file = text("summaries-", corpus.name, ".svg"),
           .title = chart.title,
           .svg = line_chart_svg(chart)}};
}

}  // namespace infini
