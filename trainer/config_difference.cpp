#include "trainer/config_difference.h"

#include <algorithm>

#include "trainer/config_writer.h"

namespace infini {
namespace {

struct Value {
  std::string key, text;
};

void flatten(const ConfigNode& node, const std::string& path, std::vector<Value>& values) {
  if (node.kind == ConfigNode::Kind::kScalar) values.push_back({path, node.text});
  for (std::size_t i = 0; i < node.children.size(); ++i) {
    const ConfigNode& child = node.children[i];
    const bool in_list = node.kind == ConfigNode::Kind::kSequence;
    flatten(child, in_list ? text(path, "[", i, "]") : dotted(path, child.key), values);
  }
}

std::vector<Value> values_of(const RunConfig& config) {
  std::vector<Value> values;
  flatten(parse_config(config_yaml(config), "configuration"), "", values);
  return values;
}

const std::string* find(const std::vector<Value>& values, const std::string& key) {
  const auto found = std::ranges::find(values, key, &Value::key);
  return found == values.end() ? nullptr : &found->text;
}

}  // namespace

std::vector<ConfigDifference> config_differences(const RunConfig& left, const RunConfig& right) {
  const std::vector<Value> lefts = values_of(left), rights = values_of(right);
  std::vector<ConfigDifference> differences;
  for (const auto& [key, value] : lefts) {
    const std::string* other = find(rights, key);
    if (!other || *other != value)
      differences.push_back({.key = key, .left = value, .right = other ? *other : "nothing"});
  }
  for (const auto& [key, value] : rights)
    if (!find(lefts, key)) differences.push_back({.key = key, .left = "nothing", .right = value});
  return differences;
}

}  // namespace infini
