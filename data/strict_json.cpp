#include "data/strict_json.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "tensor/error.h"

namespace infini {
namespace {

using nlohmann::json;

constexpr int kMostLevels = 32;
constexpr std::size_t kMostBytes = std::size_t{256} << 20;
constexpr std::size_t kLongestExcerpt = 80;

// The beginning of a value, as ASCII.
std::string excerpt(const json& value) {
  if (value.is_object() || value.is_array())
    return text("an ", value.type_name(), " of ", value.size());
  const std::string all = value.dump(-1, ' ', true);
  return all.size() <= kLongestExcerpt ? all : all.substr(0, kLongestExcerpt) + "...";
}

json parse(std::string_view bytes, const std::string& who) {
  check<DataError>(bytes.size() <= kMostBytes, who, ": has ", bytes.size(),
                   " bytes, expected JSON of at most ", kMostBytes);
  std::vector<std::unordered_set<std::string>> keys;  // of the objects around the current place
  const auto look = [&](int depth, json::parse_event_t event, json& parsed) {
    using Event = json::parse_event_t;
    check<DataError>(depth <= kMostLevels, who, ": has values inside more than ", kMostLevels,
                     " others");
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key)
      check<DataError>(keys.back().insert(parsed.get<std::string>()).second, who, ": the key ",
                       excerpt(parsed), " stands twice in an object");
    return true;
  };
  try {
    return json::parse(bytes, look);
  } catch (const json::parse_error& error) {
    throw DataError(text(who, ": no JSON from byte ", error.byte, " of ", bytes.size(), " on"));
  } catch (const json::exception& error) {
    throw DataError(text(who, ": no sound JSON: ", error.what()));
  }
}

}  // namespace

StrictJson::StrictJson(std::string_view bytes, std::string who)
    : who_(std::move(who)), value_(std::make_unique<const json>(parse(bytes, who_))) {}

StrictJson::~StrictJson() = default;

void JsonValue::refuse(std::string_view expected) const {
  throw DataError(text(*who_, ": ", path_.empty() ? "the file" : path_, " is ",
                       value_ ? excerpt(*value_) : "missing", ", expected ", expected));
}

bool JsonValue::is_null() const { return !value_ || value_->is_null(); }
bool JsonValue::is_string() const { return value_ && value_->is_string(); }

const std::string& JsonValue::string() const {
  require(is_string(), "a string");
  return value_->get_ref<const std::string&>();
}

std::int32_t JsonValue::integer() const {
  constexpr std::uint64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (!value_ || !value_->is_number_unsigned() || value_->get<std::uint64_t>() > kMost)
    refuse(text("an integer from 0 to ", kMost));
  return value_->get<std::int32_t>();
}

bool JsonValue::boolean(bool when_missing) const {
  if (!value_) return when_missing;
  require(value_->is_boolean(), "true or false");
  return value_->get<bool>();
}

std::size_t JsonValue::size() const {
  require(value_ && (value_->is_array() || value_->is_object()), "an array or an object");
  return value_->size();
}

std::vector<std::string> JsonValue::keys() const {
  require(value_ && value_->is_object(), "an object");
  std::vector<std::string> names;
  for (const auto& [key, value] : value_->items()) names.push_back(key);
  return names;
}

JsonValue JsonValue::operator[](const std::string& key) const {
  require(value_ && value_->is_object(), "an object");
  const auto found = value_->find(key);
  return {who_, found == value_->end() ? nullptr : &*found,
          path_.empty() ? key : path_ + "." + key};
}

JsonValue JsonValue::at(std::size_t index) const {
  require(value_ && value_->is_array() && index < value_->size(), "an array");
  return {who_, &(*value_)[index], path_ + '[' + std::to_string(index) + ']'};
}

void JsonValue::allow_keys(std::initializer_list<std::string_view> known) const {
  for (const std::string& key : keys())
    if (std::find(known.begin(), known.end(), key) == known.end())
      (*this)[key].refuse("no such key");
}

}  // namespace infini
