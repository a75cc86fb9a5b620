// Enums whose values files and command lines call by name. Such an enum lists them beside its
// declaration:
//
//   constexpr std::array<std::pair<std::string_view, Rule>, 2> enum_names(Rule) {
//     return {{{"linear", Rule::kLinear}, {"delta", Rule::kDelta}}};
//   }
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tensor/error.h"

namespace infini {

template <class E>
concept NamedEnum = std::is_enum_v<E> && requires(E value) {
  enum_names(value);
};

// Throws Error for a value that has no name.
template <NamedEnum E>
constexpr std::string_view name_of(E value) {
  for (const auto& [name, option] : enum_names(value))
    if (option == value) return name;
  throw Error(text("an enum without a name: ", static_cast<int>(value)));
}

// The value of that name, where there is one.
template <NamedEnum E>
constexpr std::optional<E> value_of(std::string_view wanted) {
  for (const auto& [name, value] : enum_names(E{}))
    if (name == wanted) return value;
  return std::nullopt;
}

template <NamedEnum E>
std::vector<std::string> names_of() {
  std::vector<std::string> names;
  for (const auto& [name, value] : enum_names(E{})) names.emplace_back(name);
  return names;
}

}  // namespace infini
