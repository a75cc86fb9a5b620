#include "trainer/figures.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "tensor/error.h"
#include "trainer/svg.h"

namespace infini {
namespace {

using Anchor = Svg::Anchor;

constexpr const char* kGrid = "#dddddd";
constexpr const char* kInk = "#333333";
// Okabe and Ito's colours, which those who see fewer tell apart as well.
constexpr std::array<const char*, 8> kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                 "#e69f00", "#56b4e9", "#7f6000", "#000000"};

// Where values lie in the drawing.
struct Plot {
  double left, top, width, height;
  double low, high;  // of the values upwards

  double right() const { return left + width; }
  double bottom() const { return top + height; }
  double y(double value) const { return bottom() - height * (value - low) / (high - low); }
};

void draw_frame(Svg& svg, const Plot& plot) {
  svg.line({plot.left, plot.top}, {plot.left, plot.bottom()}, {.colour = kInk});
  svg.line({plot.left, plot.bottom()}, {plot.right(), plot.bottom()}, {.colour = kInk});
}

void draw_marks_upwards(Svg& svg, const Plot& plot, int count) {
  const std::vector<double> marks = axis_marks(plot.low, plot.high, count);
  const double step = marks.size() > 1 ? marks[1] - marks[0] : 1;
  const int decimals = std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
  for (const double mark : marks) {
    svg.line({plot.left, plot.y(mark)}, {plot.right(), plot.y(mark)}, {.colour = kGrid});
    svg.text({plot.left - 6, plot.y(mark) + 4}, short_number(mark, decimals),
             {.anchor = Anchor::kEnd});
  }
}

void draw_titles(Svg& svg, const Plot& plot, const std::string& x_title,
                 const std::string& y_title) {
  svg.text({plot.left + plot.width / 2, plot.bottom() + 44}, x_title, {.anchor = Anchor::kMiddle});
  svg.text({plot.left - 48, plot.top + plot.height / 2}, y_title,
           {.anchor = Anchor::kMiddle, .upwards = true});
}

std::pair<double, double> range_of(const LineChart& chart) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const LineChart::Line& line : chart.lines)
    for (const double value : line.values)
      if (std::isfinite(value)) low = std::min(low, value), high = std::max(high, value);
  check(low <= high, "the chart \"", chart.title, "\" has no value to show");
  const double margin = high > low ? 0.06 * (high - low) : std::max(0.05 * std::abs(high), 0.05);
  return {low - margin, high + margin};
}

void draw_line(Svg& svg, const Plot& plot, const LineChart::Line& line, double spacing) {
  const std::string colour = kColours[static_cast<std::size_t>(line.colour) % kColours.size()];
  std::vector<Svg::Point> stretch;
  const auto draw = [&] {
    if (stretch.size() > 1)
      svg.path(stretch, {.colour = colour, .width = 2, .dashed = line.dashed});
    for (const Svg::Point& point : stretch) svg.disc(point, line.dashed ? 2 : 3, colour);
    stretch.clear();
  };
  for (std::size_t i = 0; i < line.values.size(); ++i) {
    if (!std::isfinite(line.values[i])) {
      draw();
      continue;
    }
    stretch.push_back(
        {plot.left + spacing * (static_cast<double>(i) + 0.5), plot.y(line.values[i])});
  }
  draw();
}

// Blue at 0, white at 1/2, red at 1.
std::string share_colour(double share) {
  constexpr std::array<double, 3> kLow = {33, 102, 172}, kMiddle = {247, 247, 247},
                                  kHigh = {178, 24, 43};
  const double t = std::clamp(2 * share, 0.0, 2.0);
  std::string colour = "#";
  for (std::size_t i = 0; i < 3; ++i) {
    const double value = t < 1 ? kLow[i] + t * (kMiddle[i] - kLow[i])
                               : kMiddle[i] + (t - 1) * (kHigh[i] - kMiddle[i]);
    const int byte = static_cast<int>(std::lround(value));
    colour += {"0123456789abcdef"[byte / 16], "0123456789abcdef"[byte % 16]};
  }
  return colour;
}

void draw_colour_key(Svg& svg, double left, double top, double height) {
  constexpr int kSteps = 50;
  for (int i = 0; i < kSteps; ++i) {
    const double step = height / kSteps;
    svg.rectangle({left, top + height - (i + 1) * step}, 14, step + 0.5,
                  share_colour((i + 0.5) / kSteps));
  }
  for (const double mark : {0.0, 0.5, 1.0})
    svg.text({left + 18, top + height * (1 - mark) + 4}, short_number(mark, 1), {.size = 11});
}

void draw_heat_map(Svg& svg, const HeatMap& map, const Plot& plot) {
  const auto rows = static_cast<double>(map.shares.size());
  for (std::size_t r = 0; r < map.shares.size(); ++r) {
    const double height = plot.height / rows, top = plot.top + height * static_cast<double>(r);
    svg.text({plot.left - 6, top + height / 2 + 4}, map.rows[r], {.anchor = Anchor::kEnd});
    const std::vector<double>& shares = map.shares[r];
    const double width = plot.width / static_cast<double>(shares.size());
    for (std::size_t c = 0; c < shares.size(); ++c) {
      const double left = plot.left + width * static_cast<double>(c);
      svg.rectangle({left, top}, width, height, share_colour(shares[c]));
      const bool dark = std::abs(shares[c] - 0.5) > 0.35;
      if (width >= 28 && height >= 14)
        svg.text({left + width / 2, top + height / 2 + 4}, short_number(shares[c], 2),
                 {.size = 10, .anchor = Anchor::kMiddle, .colour = dark ? "#ffffff" : kInk});
      if (r == 0)
        svg.text({left + width / 2, plot.bottom() + 16}, map.columns[c],
                 {.anchor = Anchor::kMiddle});
    }
  }
  draw_titles(svg, plot, map.x_title, map.y_title);
}

// "1", "2", ... so many.
std::vector<std::string> numbers_to(std::size_t count) {
  std::vector<std::string> numbers;
  for (std::size_t i = 1; i <= count; ++i) numbers.push_back(text(i));
  return numbers;
}

void draw_histogram(Svg& svg, const GateFigure& figure, Plot plot) {
  constexpr int kBins = 20;
  std::array<int, kBins> counts{};
  for (const std::vector<double>& heads : figure.shares)
    for (const double share : heads)
      ++counts[static_cast<std::size_t>(std::clamp(static_cast<int>(share * kBins), 0, kBins - 1))];
  plot.high = 1.1 * std::ranges::max(counts);
  draw_marks_upwards(svg, plot, 5);
  const double width = plot.width / kBins;
  for (int i = 0; i < kBins; ++i) {
    const double top = plot.y(counts[static_cast<std::size_t>(i)]);
    svg.rectangle({plot.left + i * width + 1, top}, width - 2, plot.bottom() - top, kColours[0]);
  }
  draw_frame(svg, plot);
  for (const double mark : {0.0, 0.25, 0.5, 0.75, 1.0})
    svg.text({plot.left + plot.width * mark, plot.bottom() + 16}, short_number(mark, 2),
             {.anchor = Anchor::kMiddle});
  draw_titles(svg, plot, "sigmoid(gate): 0 local attention, 1 memory", "heads");
}

}  // namespace

std::vector<double> axis_marks(double low, double high, int count) {
  const double rough = (high - low) / std::max(count, 1);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= rough) step = factor * power;
  std::vector<double> marks;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i)
    marks.push_back(i * step);
  return marks;
}

std::string line_chart_svg(const LineChart& chart) {
  const auto [low, high] = range_of(chart);
  constexpr double kLegend = 250, kRow = 20;
  const double height = std::max(300.0, kRow * static_cast<double>(chart.lines.size()));
  const Plot plot{.left = 70, .top = 48, .width = 560, .height = height, .low = low, .high = high};
  Svg svg(plot.right() + kLegend, plot.bottom() + 64, chart.title);
  svg.text({plot.left, 26}, chart.title, {.size = 15});
  draw_marks_upwards(svg, plot, 7);
  draw_frame(svg, plot);
  const double spacing =
      plot.width / static_cast<double>(std::max<std::size_t>(1, chart.places.size()));
  for (std::size_t i = 0; i < chart.places.size(); ++i)
    svg.text({plot.left + spacing * (static_cast<double>(i) + 0.5), plot.bottom() + 18},
             chart.places[i], {.size = 10, .anchor = Anchor::kMiddle});
  draw_titles(svg, plot, chart.x_title, chart.y_title);
  double y = plot.top + 8;
  for (const LineChart::Line& line : chart.lines) {
    draw_line(svg, plot, line, spacing);
    const std::string colour = kColours[static_cast<std::size_t>(line.colour) % kColours.size()];
    svg.line({plot.right() + 16, y - 4}, {plot.right() + 44, y - 4},
             {.colour = colour, .width = 2, .dashed = line.dashed});
    svg.text({plot.right() + 50, y}, line.name, {});
    y += kRow;
  }
  return svg.finished();
}

std::string heat_map_svg(const HeatMap& map) {
  check(!map.shares.empty() && !map.columns.empty(), "the figure \"", map.title,
        "\" has no cell to show");
  const Plot plot{.left = 90,
                  .top = 48,
                  .width = std::max(240.0, 56.0 * static_cast<double>(map.columns.size())),
                  .height = std::max(120.0, 24.0 * static_cast<double>(map.rows.size())),
                  .low = 0,
                  .high = 1};
  Svg svg(plot.right() + 80, plot.bottom() + 64, map.title);
  svg.text({plot.left, 26}, map.title, {.size = 15});
  draw_heat_map(svg, map, plot);
  draw_colour_key(svg, plot.right() + 18, plot.top, plot.height);
  return svg.finished();
}

std::string gate_figure_svg(const GateFigure& figure) {
  check(!figure.shares.empty(), "the figure \"", figure.title, "\" has no gate to show");
  std::size_t most = 0;
  for (const std::vector<double>& heads : figure.shares) most = std::max(most, heads.size());
  const double height = std::max(220.0, 24.0 * static_cast<double>(figure.shares.size()));
  const Plot map{.left = 70, .top = 48, .width = 360, .height = height, .low = 0, .high = 1};
  const Plot histogram{
      .left = map.right() + 150, .top = 48, .width = 340, .height = height, .low = 0, .high = 1};
  Svg svg(histogram.right() + 30, map.bottom() + 64, figure.title);
  svg.text({map.left, 26}, figure.title, {.size = 15});
  draw_heat_map(svg,
                {.title = {},
                 .x_title = "head",
                 .y_title = "layer",
                 .rows = numbers_to(figure.shares.size()),
                 .columns = numbers_to(most),
                 .shares = figure.shares},
                map);
  draw_colour_key(svg, map.right() + 18, map.top, map.height);
  draw_histogram(svg, figure, histogram);
  return svg.finished();
}

}  // namespace infini
