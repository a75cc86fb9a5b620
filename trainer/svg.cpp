#include "trainer/svg.h"

#include <charconv>

#include "tensor/error.h"

namespace infini {
namespace {

std::string attribute(std::string_view name, std::string_view value) {
  return infini::text(" ", name, "=\"", xml_escaped(value), "\"");
}
std::string attribute(std::string_view name, double value) {
  return attribute(name, short_number(value, 2));
}

std::string stroke_attributes(const Svg::Stroke& stroke) {
  return attribute("fill", "none") + attribute("stroke", stroke.colour) +
         attribute("stroke-width", stroke.width) +
         (stroke.dashed ? attribute("stroke-dasharray", "6 4") : "");
}

}  // namespace

std::string xml_escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

std::string short_number(double value, int decimals) {
  char digits[512];
  const auto end =
      std::to_chars(digits, digits + sizeof digits, value, std::chars_format::fixed, decimals).ptr;
  std::string out(digits, end);
  if (out.find('.') != std::string::npos) {
    out.erase(out.find_last_not_of('0') + 1);
    if (out.back() == '.') out.pop_back();
  }
  return out == "-0" ? "0" : out;
}

Svg::Svg(double width, double height, std::string_view title) {
  body_ = infini::text(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\"",
      attribute("width", width), attribute("height", height),
      attribute("viewBox",
                infini::text("0 0 ", short_number(width, 2), " ", short_number(height, 2))),
      attribute("font-family", "Helvetica, Arial, sans-serif"), ">\n<title>", xml_escaped(title),
      "</title>\n");
  rectangle({0, 0}, width, height, "#ffffff");
}

void Svg::line(Point from, Point to, const Stroke& stroke) { path({from, to}, stroke); }

void Svg::path(const std::vector<Point>& points, const Stroke& stroke) {
  std::string places;
  for (const Point& point : points)
    places += infini::text(places.empty() ? "" : " ", short_number(point.x, 2), ",",
                           short_number(point.y, 2));
  body_ +=
      infini::text("<polyline", attribute("points", places), stroke_attributes(stroke), "/>\n");
}

void Svg::disc(Point centre, double radius, const std::string& colour) {
  body_ += infini::text("<circle", attribute("cx", centre.x), attribute("cy", centre.y),
                        attribute("r", radius), attribute("fill", colour), "/>\n");
}

void Svg::rectangle(Point corner, double width, double height, const std::string& colour) {
  body_ += infini::text("<rect", attribute("x", corner.x), attribute("y", corner.y),
                        attribute("width", width), attribute("height", height),
                        attribute("fill", colour), "/>\n");
}

void Svg::text(Point at, std::string_view words, const TextStyle& style) {
  const char* anchor = style.anchor == Anchor::kStart    ? "start"
                       : style.anchor == Anchor::kMiddle ? "middle"
                                                         : "end";
  const std::string turn =
      style.upwards ? attribute("transform", infini::text("rotate(-90 ", short_number(at.x, 2), " ",
                                                          short_number(at.y, 2), ")"))
                    : "";
  body_ +=
      infini::text("<text", attribute("x", at.x), attribute("y", at.y),
                   attribute("font-size", style.size), attribute("text-anchor", anchor),
                   attribute("fill", style.colour), turn, ">", xml_escaped(words), "</text>\n");
}

std::string Svg::finished() const { return body_ + "</svg>\n"; }

}  // namespace infini
