#include "trainer/reproduce_markdown.h"

#include <algorithm>
#include <cmath>

#include "trainer/markdown.h"
#include "trainer/progress.h"
#include "trainer/reproduce_passkey_tables.h"
#include "trainer/reproduce_summary_tables.h"

namespace infini {
namespace {

using Json = nlohmann::ordered_json;

std::string spread_text(const Spread& spread, int decimals) {
  if (spread.count == 0) return kMarkdownNothing;
  if (spread.count == 1) return fixed_number(spread.mean, decimals);
  return text(fixed_number(spread.mean, decimals), " ± ", fixed_number(spread.deviation, decimals));
}

std::string perplexity_text(const CellResults* cell, const char* figure) {
  if (!cell) return kMarkdownNothing;
  return spread_text(spread_of(values_of(*cell, Json::json_pointer(figure))), 3);
}

bool is_quoted(const Table& table, std::string_view of) {
  return std::ranges::any_of(
      table.config.rows, [&](const TableRowConfig& row) { return !row.quoted_value(of).empty(); });
}

std::string quoted_text(const TableRowConfig& row, std::string_view of) {
  const std::string value = row.quoted_value(of);
  return value.empty() ? kMarkdownNothing : value;
}

std::string overview(const Table& table, const std::vector<CellResults>& cells) {
  const bool quotes_memory = is_quoted(table, "memory");
  MarkdownRow titles{"model", "memory", "compression"};
  if (quotes_memory) titles.insert(titles.end(), {"memory, quoted", "compression, quoted"});
  if (table.config.kind == TableKind::kPerplexity)
    for (const CorpusConfig& corpus : table.config.corpora) {
      titles.push_back(corpus.title);
      if (is_quoted(table, corpus.name)) titles.push_back(text(corpus.title, ", quoted"));
    }
  std::string out = markdown_head(titles);
  const std::vector<RowMemory> memories = row_memories(table);
  for (std::size_t i = 0; i < memories.size(); ++i) {
    const TableRowConfig& row = table.config.rows[i];
    const RowMemory& memory = memories[i];
    MarkdownRow entries{
        row.title, memory.numbers > 0 ? millions_text(memory.numbers) : "none",
        memory.numbers > 0 ? text(fixed_number(memory.compression, 1), "x") : kMarkdownNothing};
    if (quotes_memory)
      entries.insert(entries.end(), {quoted_text(row, "memory"), quoted_text(row, "compression")});
    if (table.config.kind == TableKind::kPerplexity)
      for (const CorpusConfig& corpus : table.config.corpora) {
        entries.push_back(
            perplexity_text(find_results(cells, row.name, corpus.name), "/test/token_perplexity"));
        if (is_quoted(table, corpus.name)) entries.push_back(quoted_text(row, corpus.name));
      }
    out += markdown_row(entries);
  }
  return out;
}

double median_rate(const CellResults& cell) {
  std::vector<double> rates;
  for (const CellResults::Run& run : cell.runs)
    rates.push_back(run.timings.at("tokens_per_second"));
  std::ranges::sort(rates);
  return rates[rates.size() / 2];
}

std::int64_t peak_bytes(const CellResults& cell) {
  std::int64_t peak = 0;
  for (const CellResults::Run& run : cell.runs)
    peak = std::max(peak, run.timings.at("peak_bytes").get<std::int64_t>());
  return peak;
}

std::string details(const Table& table, const CorpusConfig& corpus,
                    const std::vector<CellResults>& cells) {
  std::string out = text("\n", markdown_head({"model", "seeds", "parameters", "training tokens",
                                              "per token", "per token, memory off", "per word",
                                              "per byte", "tokens/s", "peak memory"}));
  for (const TableRowConfig& row : table.config.rows) {
    const CellResults* cell = find_results(cells, row.name, corpus.name);
    if (!cell) continue;
    const Json& first = cell->runs.front().result;
    out += markdown_row({row.title, text(cell->runs.size()),
                         millions_text(first.at("parameters").get<std::int64_t>()),
                         millions_text(first.at("training_tokens").get<std::int64_t>()),
                         perplexity_text(cell, "/test/token_perplexity"),
                         perplexity_text(cell, "/memory_off/token_perplexity"),
                         perplexity_text(cell, "/test/word_perplexity"),
                         perplexity_text(cell, "/test/byte_perplexity"),
                         count_text(median_rate(*cell)), bytes_text(peak_bytes(*cell))});
  }
  return out;
}

// Nothing where no run on the corpus is measured.
std::string section(const Table& table, const CorpusConfig& corpus,
                    const std::vector<CellResults>& cells) {
  const bool any = std::ranges::any_of(cells, [&](const CellResults& cell) {
    return cell.corpus == corpus.name && !cell.runs.empty();
  });
  if (!any) return "";
  const auto tables = table.config.kind == TableKind::kPasskey     ? passkey_tables
                      : table.config.kind == TableKind::kSummaries ? summary_tables
                                                                   : details;
  return text("\n## ", corpus.title, "\n", tables(table, corpus, cells));
}

}  // namespace

std::string millions_text(std::int64_t count) {
  const double millions = static_cast<double>(count) / 1e6;
  const int whole_digits = millions > 0 ? static_cast<int>(std::floor(std::log10(millions))) : 0;
  return fixed_number(millions, std::max(2, 3 - whole_digits)) + "M";
}

std::string table_markdown(const Table& table, const std::vector<CellResults>& cells,
                           const std::vector<DrawnFigure>& figures) {
  std::string out =
      text("# ", table.config.title, "\n\n`infini reproduce ", table.name, " --scale ", table.scale,
           "`. Memory: numbers kept for one sequence, from the configurations; compression: how "
           "many times more the row with the largest memory keeps. Columns marked *quoted* are the "
           "paper's, of its own models and data; all others are ours.\n");
  if (table.config.kind == TableKind::kPerplexity)
    out +=
        "Perplexities are of the test split, documents read whole with the memory carried: mean "
        "over seeds ± sample standard deviation.\n";
  out += text("\n", overview(table, cells));
  for (const CorpusConfig& corpus : table.config.corpora) out += section(table, corpus, cells);
  for (const DrawnFigure& figure : figures)
    out += text("\n![", figure.title, "](", figure.file, ")\n");
  return out;
}

}  // namespace infini
