#include "data/json_document.h"

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <utility>

#include "data/units.h"
#include "tensor/error.h"

namespace infini {
namespace {

using nlohmann::json;

// JSON must be UTF-8, but a text that is not shall be kept: its malformed bytes travel through the
// parser as U+10FF00 plus the byte, characters for private use that nobody else gives a meaning.
std::string hide_malformed(std::string_view line) {
  std::string out;
  while (!line.empty()) {
    const auto length = static_cast<std::size_t>(utf8_length(line));
    if (length > 0) {
      out += line.substr(0, length);
    } else {
      const auto byte = static_cast<unsigned char>(line[0]);
      out += {'\xF4', '\x8F', static_cast<char>(0xBC | byte >> 6),
              static_cast<char>(0x80 | (byte & 0x3F))};
    }
    line.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return out;
}

std::string restore_malformed(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const bool hidden = text.size() >= 4 && text.starts_with("\xF4\x8F") &&
                        (static_cast<unsigned char>(text[2]) & 0xFC) == 0xBC;
    out += hidden ? static_cast<char>((text[2] & 3) << 6 | (text[3] & 0x3F)) : text[0];
    text.remove_prefix(hidden ? 4 : 1);
  }
  return out;
}

// The beginning of a line, fit for a terminal.
std::string excerpt(std::string_view line) {
  std::string out;
  for (std::size_t i = 0; i < line.size() && out.size() < 100;) {
    const auto length = static_cast<std::size_t>(utf8_length(line.substr(i)));
    const bool shown = length > 1 || (length == 1 && line[i] >= ' ' && line[i] != '\x7F');
    out += shown ? std::string(line.substr(i, length)) : "?";
    i += std::max<std::size_t>(length, 1);
  }
  return out;
}

[[noreturn]] void refuse(std::string_view line, const std::string& reason) {
  throw DataError(text("expected a JSON object with a string `text`, got '", excerpt(line), "' (",
                       reason, ")"));
}

// `line` is `whole` with its malformed bytes hidden.
json parse(std::string_view whole, std::string_view line) {
  try {
    return json::parse(line);
  } catch (const json::parse_error& error) {
    if (error.byte > line.size())
      refuse(whole, text("the line ends within it, after ", whole.size(), " bytes"));
    refuse(whole, text("no JSON from byte ", error.byte, " on"));
  } catch (const json::exception& error) {
    refuse(whole, error.what());
  }
}

std::map<std::string, std::string> flat(const json& object) {
  std::map<std::string, std::string> meta;
  for (const auto& [key, value] : object.items()) {
    if (value.is_null()) continue;
    meta[key] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  return meta;
}

}  // namespace

std::string JsonDocument::name() const {
  for (const char* key : {"arxiv_id", "file", "url"})
    if (const auto found = meta.find(key); found != meta.end()) return found->second;
  return {};
}

std::string JsonDocument::title() const {
  const auto found = meta.find("title");
  return found == meta.end() ? std::string() : found->second;
}

JsonDocument parse_json_document(std::string_view line) {
  const bool malformed = !is_utf8(line);
  json object = malformed ? parse(line, hide_malformed(line)) : parse(line, line);
  const auto restored = [&](const std::string& value) {
    return malformed ? restore_malformed(value) : value;
  };
  if (!object.is_object()) refuse(line, text("it is of type ", object.type_name()));
  const auto content = object.find("text");
  if (content == object.end()) refuse(line, "it has no `text`");
  if (!content->is_string()) refuse(line, text("its `text` is of type ", content->type_name()));

  JsonDocument document;
  document.text = std::move(content->get_ref<std::string&>());
  if (malformed) document.text = restore_malformed(document.text);
  if (const auto meta = object.find("meta"); meta != object.end()) {
    if (meta->is_string()) *meta = json::parse(meta->get<std::string>(), nullptr, false);
    if (meta->is_object())
      for (const auto& [key, value] : flat(*meta)) document.meta[restored(key)] = restored(value);
  }
  return document;
}

}  // namespace infini
