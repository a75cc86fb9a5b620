// YAML text as a tree that remembers where each value was written.
// Refused with ConfigError: files over 1 MiB, nesting over 32 levels, more than 16 aliases or
// 20,000 values, duplicate keys, tags, keys that are not text, more than one document.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace infini {

struct ConfigNode {
  enum class Kind { kNull, kScalar, kSequence, kMap };

  Kind kind = Kind::kNull;
  bool quoted = false;  // a scalar in quotes is text, never a number
  std::string text;     // of a scalar
  std::string key;      // under which a map holds this node
  std::string where;    // "configs/small.yaml:12" or "command line"
  std::vector<ConfigNode> children;

  // The entry of a map, or nullptr.
  const ConfigNode* find(std::string_view name) const;
};

// What the text says, in the words of a message: "fast", a list, nothing, ...
std::string described(const ConfigNode& node);

// `source` names the text in messages. An empty document is an empty map.
ConfigNode parse_config(std::string_view yaml, const std::string& source);
ConfigNode read_config_tree(const std::filesystem::path& file);

// Sets one value, written "optim.peak_rate=0.01" or "data.files=[a.txt, b.txt]". Maps on the way
// are created; whether the key exists is decided by whoever reads the tree.
void apply_override(ConfigNode& root, const std::string& assignment);

}  // namespace infini
