#include "data/summary_json.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tensor/error.h"

namespace infini {
namespace {

using nlohmann::json;

json parse_object(std::string_view bytes, const char* expected) {
  json object;
  try {
    object = json::parse(bytes);
  } catch (const json::parse_error& error) {
    throw DataError(text("expected ", expected, ", but there is no JSON from byte ", error.byte,
                         " of ", bytes.size(), " on"));
  } catch (const json::exception& error) {
    throw DataError(text("expected ", expected, ", got JSON that cannot be read: ", error.what()));
  }
  check<DataError>(object.is_object(), "expected ", expected, ", got JSON of type ",
                   object.type_name());
  return object;
}

const std::string& string_at(const json& object, const char* key) {
  const auto found = object.find(key);
  check<DataError>(found != object.end(), "expected a string `", key, "`, there is none");
  check<DataError>(found->is_string(), "expected a string `", key, "`, it is of type ",
                   found->type_name());
  return found->get_ref<const std::string&>();
}

// Of a key that may be missing: strings as they are, numbers as JSON has them.
std::string word_at(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null() || found->is_structured()) return {};
  return found->is_string() ? found->get<std::string>() : found->dump();
}

// A file must not be asked for outside of the tree, whatever a line says.
std::string path_at(const json& object, const char* key) {
  const std::string& path = string_at(object, key);
  const std::filesystem::path normal = std::filesystem::path(path).lexically_normal();
  check<DataError>(!path.empty() && normal.is_relative() && *normal.begin() != ".." &&
                       path.find('\0') == path.npos,
                   "`", key, "` is no path inside the tree: '", path.substr(0, 100), "'");
  return path;
}

std::string joined(const json& parts) {
  if (parts.is_string()) return parts.get<std::string>();
  check<DataError>(parts.is_array(), "expected `summary` to be a text or a list of texts, it is ",
                   "of type ", parts.type_name());
  std::string all;
  for (const json& part : parts) {
    check<DataError>(part.is_string(), "expected `summary` to list texts, one is of type ",
                     part.type_name());
    all += (all.empty() ? "" : " ") + part.get_ref<const std::string&>();
  }
  return all;
}

Summary one_summary(const json& value) {
  if (value.is_string()) return {.source = {}, .text = value.get<std::string>()};
  check<DataError>(value.is_object(), "expected a summary to be a text or an object with `text`, ",
                   "it is of type ", value.type_name());
  return {.source = word_at(value, "source"), .text = string_at(value, "text")};
}

}  // namespace

Alignment parse_alignment(std::string_view line, SummaryLevel level) {
  const json object = parse_object(line, "a JSON object that names a text and its summary");
  const bool book = level == SummaryLevel::kBook;
  return {.document = path_at(object, book ? "book_path" : "chapter_path"),
          .summary = path_at(object, "summary_path"),
          .source = word_at(object, "source"),
          .title = word_at(object, book ? "title" : "book_id")};
}

std::string parse_summary(std::string_view bytes) {
  const json object = parse_object(bytes, "a JSON object with `summary`");
  const auto found = object.find("summary");
  check<DataError>(found != object.end(), "expected `summary`, there is none");
  return joined(*found);
}

SummarizedDocument parse_summarized(std::string_view line, SummaryLevel level) {
  const json object = parse_object(line, "a JSON object with `text` and `summary`");
  SummarizedDocument result;
  result.level = level;
  result.document.text = string_at(object, "text");
  for (const char* key : {"chapter_id", "book_id", "bid"})
    if (result.document.name.empty()) result.document.name = word_at(object, key);
  result.document.title = word_at(object, "title");
  const auto found = object.find("summary");
  check<DataError>(found != object.end(), "expected `summary`, there is none");
  if (found->is_array())
    for (const json& value : *found) result.summaries.push_back(one_summary(value));
  else
    result.summaries.push_back(one_summary(*found));
  return result;
}

}  // namespace infini
