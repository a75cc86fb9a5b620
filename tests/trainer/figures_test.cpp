// Figures are well-formed, say what they show, show the values they were given, and repeat.
#include "trainer/figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <regex>

#include "tensor/error.h"
#include "tests/data/fixtures.h"
#include "tests/trainer/xml_check.h"
#include "trainer/svg.h"

namespace infini {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kGap = std::numeric_limits<double>::quiet_NaN();

LineChart chart() {
  return {.title = "Books & <papers>",
          .x_title = "segment",
          .y_title = "perplexity",
          .places = {"0", "1", "2-3"},
          .lines = {{.name = "linear", .values = {30, 20, 10}},
                    {.name = "linear, off", .values = {30, kGap, 25}, .dashed = true}}};
}

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(Svg, IsWellFormedWhateverTheWords) {
  Svg svg(100, 50, "<\"title\"> & more");
  svg.text({1, 2}, "a < b & c > \"d\" \x01 é", {});
  svg.line({0, 0}, {1.005, -0.001}, {.dashed = true});
  EXPECT_EQ(xml_fault(svg.finished()), "");
  EXPECT_THAT(svg.finished(), HasSubstr("a &lt; b &amp; c &gt; &quot;d&quot;   é"));

  const std::string good = svg.finished();
  const auto spoilt = [&](const std::string& from, const std::string& to) {
    std::string bad = good;
    return xml_fault(bad.replace(bad.find(from), from.size(), to));
  };
  EXPECT_EQ(spoilt("&amp;", "&"), "an & that is no entity");
  EXPECT_EQ(spoilt("</svg>\n", ""), "a tag is left open");
  EXPECT_EQ(spoilt("</title>", ""), "</svg> closes nothing");
  EXPECT_EQ(spoilt("</svg>\n", "</svg><svg/>"), "two roots");
  EXPECT_THAT(spoilt("width=\"100\"", "width=100"), HasSubstr("no tag: "));
  EXPECT_THAT(spoilt("&lt; b", "< b"), HasSubstr("no tag: "));
  EXPECT_EQ(spoilt("&gt;", ">"), "a > between tags");
}

TEST(Svg, NumbersAreShort) {
  EXPECT_EQ(short_number(1.0, 2), "1");
  EXPECT_EQ(short_number(1.25, 1), "1.2");
  EXPECT_EQ(short_number(-0.001, 2), "0");
  EXPECT_EQ(short_number(1200, 0), "1200");
}

TEST(Figures, MarksOfAnAxisAreRound) {
  EXPECT_THAT(axis_marks(0, 10, 5), ElementsAre(0, 2, 4, 6, 8, 10));
  EXPECT_THAT(axis_marks(11, 29, 4), ElementsAre(15, 20, 25));
  EXPECT_THAT(axis_marks(-0.1, 0.1, 2), ElementsAre(-0.1, 0, 0.1));
}

TEST(Figures, ALineChartHasAxesLabelsLegendAndItsLines) {
  const std::string svg = line_chart_svg(chart());
  EXPECT_EQ(xml_fault(svg), "");
  EXPECT_EQ(svg, line_chart_svg(chart()));
  for (const char* words : {">Books &amp; &lt;papers&gt;<", ">segment<", ">perplexity<", ">2-3<",
                            ">linear<", ">linear, off<", ">20<"})
    EXPECT_THAT(svg, HasSubstr(words));
  EXPECT_EQ(count(svg, "<circle"), 5);           // one a value; the gap has none
  EXPECT_EQ(count(svg, "stroke-dasharray"), 1);  // in the legend: the gap leaves nothing to join

  // Values a third of the range apart lie as far apart upwards.
  const std::regex points("points=\"([0-9.]+),([0-9.]+) ([0-9.]+),([0-9.]+) ([0-9.]+),([0-9.]+)\"");
  std::smatch found;
  ASSERT_TRUE(std::regex_search(svg, found, points));
  const double first = std::stod(found[2]), second = std::stod(found[4]),
               third = std::stod(found[6]);
  EXPECT_LT(first, second);  // downwards is less
  EXPECT_NEAR(third - second, second - first, 0.02);

  LineChart nothing = chart();
  for (LineChart::Line& line : nothing.lines) line.values = {kGap};
  EXPECT_EQ(message_of<Error>([&] { line_chart_svg(nothing); }),
            "the chart \"Books & <papers>\" has no value to show");
}

TEST(Figures, GatesAreAHeatMapAndItsHistogram) {
  const GateFigure figure{.title = "Gates", .shares = {{0, 0.5}, {1, 0.02}, {0.97, 1}}};
  const std::string svg = gate_figure_svg(figure);
  EXPECT_EQ(xml_fault(svg), "");
  EXPECT_EQ(svg, gate_figure_svg(figure));
  for (const char* words : {">head<", ">layer<", ">heads<", ">0.97<", ">3<",
                            ">sigmoid(gate): 0 local attention, 1 memory<"})
    EXPECT_THAT(svg, HasSubstr(words));
  EXPECT_THAT(svg, HasSubstr("fill=\"#2166ac\""));  // 0
  EXPECT_THAT(svg, HasSubstr("fill=\"#f7f7f7\""));  // 1/2
  EXPECT_THAT(svg, HasSubstr("fill=\"#b2182b\""));  // 1
  // Heads at 0 and 0.02 share the first bin, 0.97 and twice 1 the last: as 2 to 3, and 1 between.
  const std::regex bar("<rect x=\"[0-9.]+\" y=\"[0-9.]+\" width=\"15\" height=\"([0-9.]+)\"");
  std::vector<double> heights;
  for (std::sregex_iterator at(svg.begin(), svg.end(), bar), end; at != end; ++at)
    heights.push_back(std::stod((*at)[1]));
  ASSERT_EQ(heights.size(), 20U);
  EXPECT_NEAR(heights.front() / heights.back(), 2.0 / 3, 0.01);
  EXPECT_NEAR(heights[10] / heights.back(), 1.0 / 3, 0.01);
}

TEST(HeatMap, ColoursEveryCell) {
  const HeatMap map{.title = "Keys",
                    .x_title = "tokens",
                    .y_title = "depth",
                    .rows = {"0%", "100%"},
                    .columns = {"32K", "1M"},
                    .shares = {{1, 0.25}, {0, 0.5}}};
  const std::string svg = heat_map_svg(map);
  EXPECT_EQ(xml_fault(svg), "");
  for (const char* words : {">Keys<", ">tokens<", ">depth<", ">0%<", ">100%<", ">32K<", ">1M<",
                            ">0.25<", "#b2182b", "#2166ac", "#f7f7f7"})
    EXPECT_THAT(svg, HasSubstr(words));
  EXPECT_THROW(heat_map_svg(HeatMap{}), Error);
}

}  // namespace
}  // namespace infini
