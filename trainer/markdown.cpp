#include "trainer/markdown.h"

#include "trainer/svg.h"

namespace infini {

std::string markdown_row(const MarkdownRow& cells) {
  std::string out = "|";
  for (const std::string& cell : cells) out += " " + cell + " |";
  return out + "\n";
}

std::string markdown_head(const MarkdownRow& titles) {
  std::string out = markdown_row(titles) + "|";
  for (std::size_t i = 0; i < titles.size(); ++i) out += i == 0 ? "---|" : "---:|";
  return out + "\n";
}

std::string fixed_number(double value, int decimals) {
  std::string out = short_number(value, decimals);
  if (decimals == 0) return out;
  if (out.find('.') == std::string::npos) out += '.';
  out.resize(out.find('.') + 1 + static_cast<std::size_t>(decimals), '0');
  return out;
}

}  // namespace infini
