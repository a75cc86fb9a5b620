#include "trainer/config_reader.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

namespace infini {
namespace {

// Levenshtein's distance: insertions, deletions and replacements that turn a into b.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replace});
    }
  }
  return row.back();
}

// The whole text as a number, or false. Out of range is told apart, because it reads differently.
template <class T>
bool parse_number(std::string_view digits, T& value, bool& out_of_range) {
  if (digits.starts_with('+')) digits.remove_prefix(1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (end != digits.data() + digits.size()) return false;
  out_of_range = error == std::errc::result_out_of_range;
  return error == std::errc{} || out_of_range;
}

template <class T>
void read_integer(const ConfigNode& node, const std::string& path, T& value) {
  T parsed{};
  bool out_of_range = false;
  if (node.kind != ConfigNode::Kind::kScalar || node.quoted ||
      !parse_number(node.text, parsed, out_of_range))
    refuse_value(node, path, "an integer");
  if (out_of_range)
    refuse_value(node, path,
                 text("an integer from ", std::numeric_limits<T>::min(), " to ",
                      std::numeric_limits<T>::max()));
  value = parsed;
}

}  // namespace

void read_scalar(const ConfigNode& node, const std::string& path, bool& value) {
  const bool plain = node.kind == ConfigNode::Kind::kScalar && !node.quoted;
  if (!plain || (node.text != "true" && node.text != "false"))
    refuse_value(node, path, "true or false");
  value = node.text == "true";
}

void read_scalar(const ConfigNode& node, const std::string& path, int& value) {
  read_integer(node, path, value);
}

void read_scalar(const ConfigNode& node, const std::string& path, std::int64_t& value) {
  read_integer(node, path, value);
}

void read_scalar(const ConfigNode& node, const std::string& path, double& value) {
  if (node.kind != ConfigNode::Kind::kScalar || node.quoted) refuse_value(node, path, "a number");
  if (node.text == ".inf" || node.text == "-.inf") {
    value = std::copysign(std::numeric_limits<double>::infinity(), node.text[0] == '-' ? -1 : 1);
    return;
  }
  double parsed = 0;
  bool out_of_range = false;
  if (!parse_number(node.text, parsed, out_of_range) || !std::isfinite(parsed))
    refuse_value(node, path, "a number");
  if (out_of_range) refuse_value(node, path, "a number that fits a double");
  value = parsed;
}

void read_scalar(const ConfigNode& node, const std::string& path, std::string& value) {
  if (node.kind == ConfigNode::Kind::kNull) refuse_value(node, path, "text (\"\" for none)");
  if (node.kind != ConfigNode::Kind::kScalar) refuse_value(node, path, "text");
  value = node.text;
}

std::string dotted(const std::string& path, std::string_view name) {
  return path.empty() ? std::string(name) : text(path, ".", name);
}

std::string name_hint(std::string_view name, const std::vector<std::string_view>& known) {
  if (known.empty()) return "none is expected here";
  if (name.size() <= 64) {
    const auto nearest = std::ranges::min_element(
        known, {}, [&](std::string_view candidate) { return edit_distance(name, candidate); });
    if (edit_distance(name, *nearest) <= std::max<std::size_t>(2, name.size() / 3))
      return text("did you mean ", *nearest, "?");
  }
  std::string list = "known are";
  for (std::string_view candidate : known)
    list += text(candidate == known.front() ? " " : ", ", candidate);
  return list;
}

void refuse_unknown(const ConfigNode& map, const std::string& path,
                    const std::vector<std::string_view>& known) {
  for (const ConfigNode& child : map.children)
    check<ConfigError>(std::ranges::find(known, child.key) != known.end(), child.where,
                       ": unknown key ", dotted(path, child.key), "; ",
                       name_hint(child.key, known));
}

void refuse_value(const ConfigNode& node, const std::string& path, const std::string& expected) {
  throw ConfigError(text(node.where, ": ", path.empty() ? "the configuration" : path, " is ",
                         described(node), ", expected ", expected));
}

}  // namespace infini
