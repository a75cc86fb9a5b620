// Tables in Markdown.
#pragma once

#include <string>
#include <vector>

namespace infini {

using MarkdownRow = std::vector<std::string>;

inline constexpr const char* kMarkdownNothing = "–";

// "| a | b |\n".
std::string markdown_row(const MarkdownRow& cells);
// The titles and the line below them: the first column to the left, numbers to the right.
std::string markdown_head(const MarkdownRow& titles);
// With exactly so many decimals.
std::string fixed_number(double value, int decimals);

}  // namespace infini
