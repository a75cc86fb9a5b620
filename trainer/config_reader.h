// Configuration structs from YAML and the command line. A struct describes itself once:
//
//   struct OptimConfig {
//     double peak_rate = 3e-4;
//     template <class Visitor>
//     void visit(Visitor& field) {
//       field("peak_rate", peak_rate, "learning rate at the end of warm-up");
//     }
//     void validate() const;  // optional; called once everything is read, inner structs first
//   };
//
// Members may be bool, int, std::int64_t, double, std::string, enums, structs with visit, and
// std::vector of these; enums as tensor/enum_names.h has them.
//
// A key that is absent keeps its default; a list replaces the default list. Everything else is
// refused with ConfigError naming file, line, dotted key, what came and what was expected.
#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tensor/enum_names.h"
#include "tensor/error.h"
#include "trainer/config_tree.h"

namespace infini {

// A scalar as the named type; `path` is the dotted key.
void read_scalar(const ConfigNode& node, const std::string& path, bool& value);
void read_scalar(const ConfigNode& node, const std::string& path, int& value);
void read_scalar(const ConfigNode& node, const std::string& path, std::int64_t& value);
void read_scalar(const ConfigNode& node, const std::string& path, double& value);
void read_scalar(const ConfigNode& node, const std::string& path, std::string& value);

// "optim" and "peak_rate" are "optim.peak_rate".
std::string dotted(const std::string& path, std::string_view name);

// "did you mean peak_rate?", or the list of known names when none is near.
std::string name_hint(std::string_view name, const std::vector<std::string_view>& known);

// Refuses whatever the map holds beyond the known names, suggesting the nearest one.
void refuse_unknown(const ConfigNode& map, const std::string& path,
                    const std::vector<std::string_view>& known);
[[noreturn]] void refuse_value(const ConfigNode& node, const std::string& path,
                               const std::string& expected);

// The visitor that fills a struct from a map.
class ConfigReader {
 public:
  ConfigReader(const ConfigNode& map, std::string path) : map_(map), path_(std::move(path)) {}

  template <class T>
  void operator()(std::string_view name, T& member, std::string_view /*help*/) {
    known_.push_back(name);
    if (const ConfigNode* node = map_.find(name)) read(*node, dotted(path_, name), member);
  }

  // Fills `value` from `node`; `path` is the dotted key of the node, empty at the root.
  template <class T>
  static void read(const ConfigNode& node, const std::string& path, T& value) {
    if constexpr (requires(ConfigReader & reader) { value.visit(reader); }) {
      read_struct(node, path, value);
    } else if constexpr (NamedEnum<T>) {
      read_enum(node, path, value);
    } else {
      read_scalar(node, path, value);
    }
  }

  template <class T>
  static void read(const ConfigNode& node, const std::string& path, std::vector<T>& values) {
    if (node.kind != ConfigNode::Kind::kSequence) refuse_value(node, path, "a list");
    values.clear();
    for (const ConfigNode& item : node.children) {
      T value{};
      read(item, text(path, "[", values.size(), "]"), value);
      values.push_back(std::move(value));
    }
  }

 private:
  template <class T>
  static void read_struct(const ConfigNode& node, const std::string& path, T& value) {
    const bool empty = node.kind == ConfigNode::Kind::kNull;  // `optim:` with nothing below
    if (node.kind != ConfigNode::Kind::kMap && !empty) refuse_value(node, path, "a group of keys");
    ConfigReader reader(node, path);
    value.visit(reader);
    refuse_unknown(node, path, reader.known_);
    if constexpr (requires { value.validate(); }) {
      try {
        value.validate();
      } catch (const ConfigError&) {
        throw;
      } catch (const Error& error) {
        throw ConfigError(error.what());
      }
    }
  }

  template <class T>
  static void read_enum(const ConfigNode& node, const std::string& path, T& value) {
    std::string expected;
    for (const auto& [name, option] : enum_names(T{})) {
      if (node.kind == ConfigNode::Kind::kScalar && node.text == name) {
        value = option;
        return;
      }
      expected += text(expected.empty() ? "" : " or ", name);
    }
    refuse_value(node, path, expected);
  }

  const ConfigNode& map_;
  std::string path_;
  std::vector<std::string_view> known_;
};

// `overrides` are "dotted.key=value", applied in order on top of the file.
template <class Config>
Config read_config(ConfigNode tree, const std::vector<std::string>& overrides = {}) {
  for (const std::string& assignment : overrides) apply_override(tree, assignment);
  Config config;
  ConfigReader::read(tree, "", config);
  return config;
}

template <class Config>
Config read_config_file(const std::filesystem::path& file,
                        const std::vector<std::string>& overrides = {}) {
  return read_config<Config>(read_config_tree(file), overrides);
}

template <class Config>
Config read_config_text(std::string_view yaml, const std::string& source,
                        const std::vector<std::string>& overrides = {}) {
  return read_config<Config>(parse_config(yaml, source), overrides);
}

}  // namespace infini
