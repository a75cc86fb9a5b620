// A drawing as SVG text: shapes and words in pixels from the upper left corner. The same calls give
// the same bytes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace infini {

class Svg {
 public:
  struct Point {
    double x = 0, y = 0;
  };
  struct Stroke {
    std::string colour = "#333333";
    double width = 1;
    bool dashed = false;
  };
  enum class Anchor { kStart, kMiddle, kEnd };
  struct TextStyle {
    double size = 12;
    Anchor anchor = Anchor::kStart;
    bool upwards = false;  // turned to be read from below
    std::string colour = "#333333";
  };

  // `title` is what a viewer shows of the whole.
  Svg(double width, double height, std::string_view title);

  void line(Point from, Point to, const Stroke& stroke);
  void path(const std::vector<Point>& points, const Stroke& stroke);
  void disc(Point centre, double radius, const std::string& colour);
  void rectangle(Point corner, double width, double height, const std::string& colour);
  // The baseline of the text begins, is centred or ends at `at`. Any UTF-8.
  void text(Point at, std::string_view words, const TextStyle& style);

  std::string finished() const;  // the whole file

 private:
  std::string body_;
};

// Text as it stands between tags or in quotes: & < > " are written as entities, and control
// characters, which XML does not have, as spaces.
std::string xml_escaped(std::string_view text);

// A number with at most `decimals` decimals and no zeros at its end, whatever the locale.
std::string short_number(double value, int decimals);

}  // namespace infini
