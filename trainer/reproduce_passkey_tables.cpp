#include "trainer/reproduce_passkey_tables.h"

#include <algorithm>

#include "trainer/figures.h"
#include "trainer/markdown.h"
#include "trainer/progress.h"
#include "trainer/reproduce_markdown.h"

namespace infini {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kPositions[] = {"start", "middle", "end"};

struct Figure {
  const char *title, *right, *of;  // what is counted, in how many
};
constexpr Figure kFigures[] = {{"Digits right", "right_digits", "digits"},
                               {"Exact matches", "exact", "prompts"}};

bool is_cell(const Json& entry, std::int64_t tokens, const char* position, bool memory) {
  return entry.at("tokens") == tokens && entry.at("position") == position &&
         entry.at("memory") == memory;
}

// The share of a figure in each run that has it.
std::vector<double> shares_of(const CellResults& cell, const Figure& figure, std::int64_t tokens,
                              const char* position, bool memory) {
  std::vector<double> shares;
  for (const CellResults::Run& run : cell.runs)
    for (const Json& entry : run.result.at("passkeys"))
      if (is_cell(entry, tokens, position, memory))
        shares.push_back(entry.at(figure.right).get<double>() / entry.at(figure.of).get<double>());
  return shares;
}

// "100/98/100", one number for each position; nothing where nothing was measured.
std::string percents_text(const CellResults& cell, const Figure& figure, std::int64_t tokens,
                          bool memory) {
  std::string out;
  for (const char* position : kPositions) {
    const Spread spread = spread_of(shares_of(cell, figure, tokens, position, memory));
    if (spread.count == 0) return kMarkdownNothing;
    out += text(out.empty() ? "" : "/", fixed_number(100 * spread.mean, 0));
  }
  return out;
}

std::string retrieval(const Table& table, const Figure& figure, const CorpusConfig& corpus,
                      const std::vector<CellResults>& cells) {
  const std::vector<std::int64_t>& lengths = table.config.passkey.lengths;
  MarkdownRow titles{"model"};
  for (const std::int64_t tokens : lengths) titles.push_back(length_text(tokens));
  std::string out =
      text("\n### ", figure.title, ", % (start/middle/end)\n\n", markdown_head(titles));
  for (const TableRowConfig& row : table.config.rows) {
    const CellResults* cell = find_results(cells, row.name, corpus.name);
    if (!cell) continue;
    for (const bool memory : {true, false}) {
      if (!memory && cell->runs.front().result.at("memory_numbers") == 0) continue;
      MarkdownRow entries{text(row.title, memory ? "" : ", memory off")};
      for (const std::int64_t tokens : lengths)
        entries.push_back(percents_text(*cell, figure, tokens, memory));
      out += markdown_row(entries);
    }
    MarkdownRow quoted{text(row.title, ", quoted")};
    for (const std::int64_t tokens : lengths) quoted.push_back(row.quoted_value(text(tokens)));
    const bool any = std::any_of(quoted.begin() + 1, quoted.end(),
                                 [](const std::string& value) { return !value.empty(); });
    if (any && figure.of == kFigures[0].of) out += markdown_row(quoted);
  }
  return out;
}

// Reading at this length, the memory as trained: the median rate and the greatest peak.
struct Cost {
  double tokens_per_second = 0;
  std::int64_t peak_bytes = 0;
};
Cost reading_cost(const CellResults& cell, std::int64_t tokens) {
  std::vector<double> rates;
  Cost cost;
  for (const CellResults::Run& run : cell.runs)
    for (const Json& entry : run.timings.at("passkeys"))
      if (entry.at("tokens") == tokens && entry.at("memory").get<bool>()) {
        rates.push_back(entry.at("tokens_per_second"));
        cost.peak_bytes = std::max(cost.peak_bytes, entry.at("peak_bytes").get<std::int64_t>());
      }
  if (rates.empty()) return cost;
  std::ranges::sort(rates);
  cost.tokens_per_second = rates[rates.size() / 2];
  return cost;
}

std::string costs(const Table& table, const CorpusConfig& corpus,
                  const std::vector<CellResults>& cells) {
  const auto [shortest, longest] = std::ranges::minmax(table.config.passkey.lengths);
  std::string out =
      text("\n### Cost\n\n",
           markdown_head({"model", "seeds", "parameters", "training tokens", "training seconds",
                          text("tokens/s reading ", length_text(longest)),
                          text("peak reading ", length_text(shortest)),
                          text("peak reading ", length_text(longest))}));
  for (const TableRowConfig& row : table.config.rows) {
    const CellResults* cell = find_results(cells, row.name, corpus.name);
    if (!cell) continue;
    const CellResults::Run& first = cell->runs.front();
    const Cost at_longest = reading_cost(*cell, longest);
    out += markdown_row({row.title, text(cell->runs.size()),
                         millions_text(first.result.at("parameters").get<std::int64_t>()),
                         millions_text(first.result.at("training_tokens").get<std::int64_t>()),
                         fixed_number(first.timings.at("training_seconds").get<double>(), 0),
                         count_text(at_longest.tokens_per_second),
                         bytes_text(reading_cost(*cell, shortest).peak_bytes),
                         bytes_text(at_longest.peak_bytes)});
  }
  return out;
}

}  // namespace

std::string passkey_tables(const Table& table, const CorpusConfig& corpus,
                           const std::vector<CellResults>& cells) {
  std::string out;
  for (const Figure& figure : kFigures) out += retrieval(table, figure, corpus, cells);
  return out + costs(table, corpus, cells);
}

std::vector<DrawnFigure> passkey_figures(const Table& table, const CorpusConfig& corpus,
                                         const std::vector<CellResults>& cells) {
  std::vector<DrawnFigure> figures;
  for (const TableRowConfig& row : table.config.rows) {
    const CellResults* cell = find_results(cells, row.name, corpus.name);
    if (!cell) continue;
    const std::string title = text("Exact matches of ", row.title, ", ", corpus.title);
    HeatMap map{.title = title,
                .x_title = "tokens of the prompt",
                .y_title = "place of the key",
                .rows = {std::begin(kPositions), std::end(kPositions)},
                .columns = {},
                .shares = {}};
    for (const std::int64_t tokens : table.config.passkey.lengths)
      map.columns.push_back(length_text(tokens));
    for (const char* position : kPositions) {
      std::vector<double>& shares = map.shares.emplace_back();
      for (const std::int64_t tokens : table.config.passkey.lengths)
        shares.push_back(spread_of(shares_of(*cell, kFigures[1], tokens, position, true)).mean);
    }
    figures.push_back({.file = text("passkeys-", corpus.name, "-", row.name, ".svg"),
                       .title = title,
                       .svg = heat_map_svg(map)});
  }
  return figures;
}

}  // namespace infini
