// The figures that tables of the paper come with, as SVG text.
#pragma once

#include <string>
#include <vector>

namespace infini {

// Lines over places that have names, with axes, a grid and a legend.
struct LineChart {
  struct Line {
    std::string name;
    std::vector<double> values;  // by place; may end early; a value that is not finite is a gap
    int colour = 0;              // lines of one colour belong together
    bool dashed = false;
  };
  std::string title, x_title, y_title;
  std::vector<std::string> places;
  std::vector<Line> lines;
};
// Throws Error for a chart without a finite value.
std::string line_chart_svg(const LineChart& chart);

// Shares in 0..1 as a map of coloured cells.
struct HeatMap {
  std::string title, x_title, y_title;
  std::vector<std::string> rows, columns;   // names, rows from above
  std::vector<std::vector<double>> shares;  // [rows][columns]
};
// Throws Error for a map without a cell.
std::string heat_map_svg(const HeatMap& map);

// Shares in 0..1 as a heat map, layers by heads, and beside it how many heads there are of each
// share, in 20 bins.
struct GateFigure {
  std::string title;
  std::vector<std::vector<double>> shares;  // [L][H]
};
std::string gate_figure_svg(const GateFigure& figure);

// Marks of an axis from `low` to `high`: the multiples of 1, 2 or 5 times a power of ten that lie
// there, about `count` of them.
std::vector<double> axis_marks(double low, double high, int count);

}  // namespace infini
