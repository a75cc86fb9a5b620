// Whether a text is well-formed XML, as far as our SVG files use XML: no comments, no sections.
#pragma once

#include <regex>
#include <string>
#include <vector>

namespace infini {

// What is wrong, or nothing.
inline std::string xml_fault(const std::string& xml) {
  static const std::regex kTag(
      "([A-Za-z][A-Za-z0-9:_-]*)((?:\\s+[A-Za-z][A-Za-z0-9:_-]*=\"[^\"<>]*\")*)\\s*(/?)");
  static const std::regex kBareAmpersand("&(?!(amp|lt|gt|quot);)");
  const std::string kProlog = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
  if (xml.compare(0, kProlog.size(), kProlog) != 0) return "no prolog";
  if (std::regex_search(xml, kBareAmpersand)) return "an & that is no entity";
  std::vector<std::string> open;
  bool closed_root = false;
  std::size_t at = kProlog.size();
  while (at < xml.size()) {
    if (xml[at] == '>') return "a > between tags";
    if (xml[at] != '<') {
      if (open.empty() && xml[at] != '\n') return "text outside the root";
      ++at;
      continue;
    }
    const std::size_t end = xml.find('>', at);
    if (end == std::string::npos) return "a tag without end";
    const std::string tag = xml.substr(at + 1, end - at - 1);
    at = end + 1;
    std::smatch parts;
    if (tag.starts_with('/')) {
      if (open.empty() || open.back() != tag.substr(1))
        return "</" + tag.substr(1) + "> closes nothing";
      open.pop_back();
      closed_root = open.empty();
    } else if (!std::regex_match(tag, parts, kTag)) {
      return "no tag: " + tag;
    } else {
      if (closed_root) return "two roots";
      if (parts[3].length() == 0) open.push_back(parts[1]);
    }
  }
  return open.empty() && closed_root ? "" : "a tag is left open";
}

}  // namespace infini
