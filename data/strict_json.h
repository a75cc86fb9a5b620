// JSON in which every doubt is refused with the place where it stands.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace infini {

// A value of a StrictJson, or the lack of one, and the keys that lead to it. Valid as long as the
// document. What is wrong throws a DataError that names file, keys, value and what was expected.
class JsonValue {
 public:
  JsonValue(const std::string* who, const nlohmann::json* value, std::string path)
      : who_(who), value_(value), path_(std::move(path)) {}

  bool is_null() const;  // or missing
  bool is_string() const;
  const std::string& string() const;
  std::int32_t integer() const;  // not negative
  bool boolean(bool when_missing) const;
  std::size_t size() const;  // of an array or an object
  std::vector<std::string> keys() const;
  JsonValue operator[](const std::string& key) const;  // of an object
  JsonValue at(std::size_t index) const;               // of an array

  void allow_keys(std::initializer_list<std::string_view> known) const;
  void require(bool condition, std::string_view expected) const {
    if (!condition) refuse(expected);
  }
  [[noreturn]] void refuse(std::string_view expected) const;

 private:
  const std::string* who_;
  const nlohmann::json* value_;  // null: missing
  std::string path_;
};

// Throws DataError for what is no JSON or not UTF-8, a key that stands twice in an object, and more
// levels or bytes than any sound file has. `who` names the file in messages.
class StrictJson {
 public:
  StrictJson(std::string_view bytes, std::string who);
  ~StrictJson();
  JsonValue root() const { return {&who_, value_.get(), ""}; }

 private:
  std::string who_;
  std::unique_ptr<const nlohmann::json> value_;
};

}  // namespace infini
