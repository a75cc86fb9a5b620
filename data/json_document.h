// A document as one line of JSON:  {"text": "...", "meta": {...}, ...}
// `meta` is an object (RedPajama: arxiv_id, timestamp, yymm, url, language), an object written as a
// string (proof-pile: config, file), or missing. Other keys are not read.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace infini {

struct JsonDocument {
  std::string text;                         // bytes as they are, valid UTF-8 or not
  std::map<std::string, std::string> meta;  // strings as they are, null left out, others as JSON

  // What the document is called where it comes from: its arxiv_id, file or url; empty without any.
  std::string name() const;
  std::string title() const;  // empty without one
};

// Throws DataError, which says what was expected, what came and where it breaks, but no file.
JsonDocument parse_json_document(std::string_view line);

}  // namespace infini
