#include "trainer/reproduce_markdown.h"

#include <algorithm>
#include <cmath>

#include "trainer/progress.h"
#include "trainer/svg.h"

namespace infini {
namespace {

using Json = nlohmann::ordered_json;
using Cells = std::vector<std::string>;

constexpr const char* kNothing = "–";

std::string line(const Cells& cells) {
  std::string out = "|";
  for (const std::string& cell : cells) out += text(" ", cell, " |");
  return out + "\n";
}

// The first column to the left, numbers to the right.
std::string head(const Cells& titles) {
  std::string out = line(titles) + "|";
  for (std::size_t i = 0; i < titles.size(); ++i) out += i == 0 ? "---|" : "---:|";
  return out + "\n";
}

std::string fixed(double value, int decimals) {
  std::string out = short_number(value, decimals);
  if (out.find('.') == std::string::npos) out += '.';
  out.resize(out.find('.') + 1 + static_cast<std::size_t>(decimals), '0');
  return out;
}

std::string spread_text(const Spread& spread, int decimals) {
  if (spread.count == 0) return kNothing;
  if (spread.count == 1) return fixed(spread.mean, decimals);
  return text(fixed(spread.mean, decimals), " ± ", fixed(spread.deviation, decimals));
}

std::string perplexity_text(const CellResults* cell, const char* figure) {
  if (!cell) return kNothing;
  return spread_text(spread_of(values_of(*cell, Json::json_pointer(figure))), 3);
}

std::string quoted_text(const TableRowConfig& row, std::string_view of) {
  const auto found = std::ranges::find(row.quoted, of, &QuotedConfig::of);
  return found == row.quoted.end() ? kNothing : found->value;
}

bool is_quoted(const Table& table, std::string_view of) {
  return std::ranges::any_of(table.config.rows, [&](const TableRowConfig& row) {
    return quoted_text(row, of) != kNothing;
  });
}

const CellResults* find_cell(const std::vector<CellResults>& cells, const std::string& row,
                             const std::string& corpus) {
  for (const CellResults& cell : cells)
    if (cell.row == row && cell.corpus == corpus && !cell.runs.empty()) return &cell;
  return nullptr;
}

std::string overview(const Table& table, const std::vector<CellResults>& cells) {
  const bool quotes_memory = is_quoted(table, "memory");
  Cells titles{"model", "memory", "compression"};
  if (quotes_memory) titles.insert(titles.end(), {"memory, quoted", "compression, quoted"});
  if (table.config.kind == TableKind::kPerplexity)
    for (const CorpusConfig& corpus : table.config.corpora) {
      titles.push_back(corpus.title);
      if (is_quoted(table, corpus.name)) titles.push_back(text(corpus.title, ", quoted"));
    }
  std::string out = head(titles);
  const std::vector<RowMemory> memories = row_memories(table);
  for (std::size_t i = 0; i < memories.size(); ++i) {
    const TableRowConfig& row = table.config.rows[i];
    const RowMemory& memory = memories[i];
    Cells entries{row.title, memory.numbers > 0 ? millions_text(memory.numbers) : "none",
                  memory.numbers > 0 ? text(fixed(memory.compression, 1), "x") : kNothing};
    if (quotes_memory)
      entries.insert(entries.end(), {quoted_text(row, "memory"), quoted_text(row, "compression")});
    if (table.config.kind == TableKind::kPerplexity)
      for (const CorpusConfig& corpus : table.config.corpora) {
        entries.push_back(
            perplexity_text(find_cell(cells, row.name, corpus.name), "/test/token_perplexity"));
        if (is_quoted(table, corpus.name)) entries.push_back(quoted_text(row, corpus.name));
      }
    out += line(entries);
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
  std::string out =
      head({"model", "seeds", "parameters", "training tokens", "per token", "per token, memory off",
            "per word", "per byte", "tokens/s", "peak memory"});
  bool any = false;
  for (const TableRowConfig& row : table.config.rows) {
    const CellResults* cell = find_cell(cells, row.name, corpus.name);
    if (!cell) continue;
    any = true;
    const Json& first = cell->runs.front().result;
    out += line({row.title, text(cell->runs.size()),
                 millions_text(first.at("parameters").get<std::int64_t>()),
                 millions_text(first.at("training_tokens").get<std::int64_t>()),
                 perplexity_text(cell, "/test/token_perplexity"),
                 perplexity_text(cell, "/memory_off/token_perplexity"),
                 perplexity_text(cell, "/test/word_perplexity"),
                 perplexity_text(cell, "/test/byte_perplexity"), count_text(median_rate(*cell)),
                 bytes_text(peak_bytes(*cell))});
  }
  return any ? text("\n## ", corpus.title, "\n\n", out) : "";
}

}  // namespace

std::string millions_text(std::int64_t count) {
  const double millions = static_cast<double>(count) / 1e6;
  const int whole_digits = millions > 0 ? static_cast<int>(std::floor(std::log10(millions))) : 0;
  return fixed(millions, std::max(2, 3 - whole_digits)) + "M";
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
  for (const CorpusConfig& corpus : table.config.corpora) out += details(table, corpus, cells);
  for (const DrawnFigure& figure : figures)
    out += text("\n![", figure.title, "](", figure.file, ")\n");
  return out;
}

}  // namespace infini
