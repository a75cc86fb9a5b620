#include "trainer/reproduce_figures.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "trainer/figures.h"
#include "trainer/reproduce_passkey_tables.h"

namespace infini {
namespace {

using Json = nlohmann::ordered_json;

// "0", "1", "2-3", "4-7", ... as far as any run of the cell goes.
std::vector<std::string> segment_places(const CellResults& cell, const char* how) {
  std::vector<std::string> places;
  for (const CellResults::Run& run : cell.runs) {
    if (!run.result.contains(how)) continue;
    const Json& groups = run.result.at(how).at("by_segment");
    for (std::size_t i = places.size(); i < groups.size(); ++i) {
      const auto first = groups[i].at("first").get<std::int64_t>(),
                 last = groups[i].at("last").get<std::int64_t>();
      places.push_back(first == last ? text(first) : text(first, "-", last));
    }
  }
  return places;
}

std::vector<double> segment_means(const CellResults& cell, const char* how, std::size_t places) {
  std::vector<double> means;
  for (std::size_t i = 0; i < places; ++i)
    means.push_back(spread_of(values_of(cell, Json::json_pointer(text("/", how, "/by_segment/", i,
                                                                      "/token_perplexity"))))
                        .mean);
  return means;
}

LineChart segment_chart(const Table& table, const CorpusConfig& corpus,
                        const std::vector<CellResults>& cells) {
  LineChart chart{.title = text("Perplexity by segment of the document, ", corpus.title),
                  .x_title = "segment of the document, counted from 0",
                  .y_title = "token perplexity",
                  .places = {},
                  .lines = {}};
  for (std::size_t r = 0; r < table.config.rows.size(); ++r)
    for (const CellResults& cell : cells) {
      const TableRowConfig& row = table.config.rows[r];
      if (cell.row != row.name || cell.corpus != corpus.name) continue;
      for (const char* how : {"test", "memory_off"}) {
        const std::vector<std::string> places = segment_places(cell, how);
        if (places.empty()) continue;
        if (places.size() > chart.places.size()) chart.places = places;
        const bool off = std::string_view(how) == "memory_off";
        chart.lines.push_back({.name = text(row.title, off ? ", memory off" : ""),
                               .values = segment_means(cell, how, places.size()),
                               .colour = static_cast<int>(r),
                               .dashed = off});
      }
    }
  return chart;
}

GateFigure gate_figure(const std::string& title, const Json& gates) {
  GateFigure figure{.title = title, .shares = {}};
  for (const Json& layer : gates) {
    std::vector<double>& shares = figure.shares.emplace_back();
    for (const Json& gate : layer) shares.push_back(1 / (1 + std::exp(-gate.get<double>())));
  }
  return figure;
}

}  // namespace

std::vector<DrawnFigure> draw_figures(const Table& table, const std::vector<CellResults>& cells) {
  std::vector<DrawnFigure> figures;
  for (const FigureKind kind : table.config.figures)
    for (const CorpusConfig& corpus : table.config.corpora) {
      if (kind == FigureKind::kPasskeys) {
        std::ranges::move(passkey_figures(table, corpus, cells), std::back_inserter(figures));
        continue;
      }
      if (kind == FigureKind::kSegments) {
        const LineChart chart = segment_chart(table, corpus, cells);
        if (!chart.lines.empty())
          figures.push_back({.file = text("segments-", corpus.name, ".svg"),
                             .title = chart.title,
                             .svg = line_chart_svg(chart)});
        continue;
      }
      for (const TableRowConfig& row : table.config.rows)
        for (const CellResults& cell : cells) {
          if (cell.row != row.name || cell.corpus != corpus.name || cell.runs.empty()) continue;
          const CellResults::Run& run = cell.runs.front();
          if (!run.result.contains("gates")) continue;
          const std::string title =
              text("sigmoid(gate) of ", row.title, ", ", corpus.title, ", seed ", run.seed);
          figures.push_back({.file = text("gates-", corpus.name, "-", row.name, ".svg"),
                             .title = title,
                             .svg = gate_figure_svg(gate_figure(title, run.result.at("gates")))});
        }
    }
  return figures;
}

}  // namespace infini
