#include "trainer/config_writer.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace infini {
namespace {

bool reads_back_without_quotes(const std::string& value) {
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '/' || c == '.' || c == '-';
  };
  return !value.empty() && value[0] != '-' && std::ranges::all_of(value, plain) &&
         value != "null" && value != "Null" && value != "NULL";
}

template <class T>
std::string shortest(T value) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  return {digits, end};
}

}  // namespace

std::string yaml_scalar(bool value) { return value ? "true" : "false"; }
std::string yaml_scalar(int value) { return shortest(value); }
std::string yaml_scalar(std::int64_t value) { return shortest(value); }

std::string yaml_scalar(double value) {
  if (std::isinf(value)) return value < 0 ? "-.inf" : ".inf";
  return shortest(value);
}

std::string yaml_scalar(const std::string& value) {
  if (reads_back_without_quotes(value)) return value;
  std::string out = "\"";
  for (const unsigned char c : value) {
    if (c == '"' || c == '\\') {
      out += {'\\', static_cast<char>(c)};
    } else if (c < 0x20 || c == 0x7F) {
      constexpr std::string_view kHex = "0123456789abcdef";
      out += {'\\', 'x', kHex[c / 16], kHex[c % 16]};
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + "\"";
}

std::string help_line(const std::string& key, const std::string& value, std::string_view help) {
  std::string line = "  " + key;
  line.resize(std::max<std::size_t>(line.size() + 2, 36), ' ');
  line += value;
  line.resize(std::max<std::size_t>(line.size() + 2, 52), ' ');
  return text(line, help, "\n");
}

}  // namespace infini
