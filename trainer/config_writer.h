// A configuration struct (see trainer/config_reader.h) as YAML and as help.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "trainer/config_reader.h"

namespace infini {

// Scalars as YAML that reads back as the same value, doubles to the last bit.
std::string yaml_scalar(bool value);
std::string yaml_scalar(int value);
std::string yaml_scalar(std::int64_t value);
std::string yaml_scalar(double value);
std::string yaml_scalar(const std::string& value);

// One line of the list of keys: "optim.peak_rate   3e-04   learning rate at the end of warm-up".
std::string help_line(const std::string& key, const std::string& value, std::string_view help);

// The visitor that prints a struct as indented YAML.
class ConfigWriter {
 public:
  explicit ConfigWriter(int indent) : indent_(indent) {}

  template <class T>
  void operator()(std::string_view name, T& member, std::string_view /*help*/) {
    out_ += text(std::string(indent_, ' '), name, ":", block(member, indent_ + 2));
  }

  const std::string& yaml() const { return out_; }

  // What follows "name:": " value" on the same line, or lines of their own. Ends with a newline.
  template <class T>
  static std::string block(T& value, int indent) {
    if constexpr (requires(ConfigWriter & writer) { value.visit(writer); }) {
      ConfigWriter writer(indent);
      value.visit(writer);
      return text("\n", writer.yaml());
    } else {
      return text(" ", scalar(value), "\n");
    }
  }

  // Structs in a list follow their dash; plain values stand in brackets.
  template <class T>
  static std::string block(std::vector<T>& values, int indent) {
    if constexpr (requires(ConfigWriter & writer, T & item) { item.visit(writer); }) {
      std::string out = values.empty() ? " []\n" : "\n";
      for (T& item : values) {
        ConfigWriter writer(indent + 2);
        item.visit(writer);
        out += text(std::string(indent, ' '), "- ", writer.yaml().substr(indent + 2));
      }
      return out;
    } else {
      return text(" ", scalar(values), "\n");
    }
  }

  template <class T>
  static std::string scalar(const T& value) {
    if constexpr (NamedEnum<T>) {
      return std::string(name_of(value));
    } else {
      return yaml_scalar(value);
    }
  }

  template <class T>
  static std::string scalar(const std::vector<T>& values) {
    std::string out;
    for (const auto& value : values) out += text(out.empty() ? "" : ", ", scalar<T>(value));
    return text("[", out, "]");
  }

 private:
  int indent_;
  std::string out_;
};

// The visitor that lists every key with its default and its help, enums with their choices.
class ConfigHelp {
 public:
  explicit ConfigHelp(std::string path) : path_(std::move(path)) {}

  template <class T>
  void operator()(std::string_view name, T& member, std::string_view help) {
    const std::string key = dotted(path_, name);
    if constexpr (requires { member.visit(*this); }) {
      ConfigHelp inner(key);
      member.visit(inner);
      out_ += inner.lines();
    } else {
      describe(key, member, help);
    }
  }

  const std::string& lines() const { return out_; }

 private:
  template <class T>
  void describe(const std::string& key, const T& value, std::string_view help) {
    if constexpr (NamedEnum<T>) {
      std::string choices;
      for (const auto& [name, option] : enum_names(value))
        choices += text(choices.empty() ? "" : "|", name);
      out_ += help_line(key, ConfigWriter::scalar(value), text(help, " (", choices, ")"));
    } else {
      out_ += help_line(key, ConfigWriter::scalar(value), help);
    }
  }

  template <class T>
  void describe(const std::string& key, const std::vector<T>& values, std::string_view help) {
    if constexpr (requires(T & item) { item.visit(*this); }) {
      out_ += help_line(text(key, "[]"), text(values.size(), " entries"), help);
      T item{};
      ConfigHelp inner(text(key, "[]"));
      item.visit(inner);
      out_ += inner.lines();
    } else {
      out_ += help_line(key, ConfigWriter::scalar(values), help);
    }
  }

  std::string path_;
  std::string out_;
};

// The complete configuration, every key written out.
template <class Config>
std::string config_yaml(Config config) {
  ConfigWriter writer(0);
  config.visit(writer);
  return writer.yaml();
}

// All keys, one a line.
template <class Config>
std::string config_help(Config config = {}) {
  ConfigHelp help("");
  config.visit(help);
  return help.lines();
}

}  // namespace infini
