#include "trainer/run_config_file.h"

#include "data/durable_file.h"
#include "trainer/loaded_model.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

std::string scalar(const ConfigNode& tree, const char* key, const std::string& otherwise = {}) {
  const ConfigNode* const node = tree.find(key);
  return node && node->kind == ConfigNode::Kind::kScalar ? node->text : otherwise;
}

ConfigNode& child(ConfigNode& map, const std::string& key) {
  for (ConfigNode& node : map.children)
    if (node.key == key) return node;
  ConfigNode& added = map.children.emplace_back();
  added.kind = ConfigNode::Kind::kMap;
  added.key = key;
  return added;
}

// Adds what `from` has and `to` does not say.
void complete(ConfigNode& to, const ConfigNode& from) {
  if (to.kind == ConfigNode::Kind::kNull) to.kind = ConfigNode::Kind::kMap;
  if (to.kind != ConfigNode::Kind::kMap) return;  // refused by whoever reads it
  for (const ConfigNode& node : from.children)
    if (!to.find(node.key))
      to.children.push_back(node);
    else if (node.kind == ConfigNode::Kind::kMap)
      complete(child(to, node.key), node);
}

// Whether the file itself says what the model is.
bool gives_model(const ConfigNode& tree) {
  const ConfigNode* const model = tree.find("model");
  return model && model->find("layers") && model->find("d_model");
}

// The configuration that says what the run began with; empty: there is none yet.
fs::path base_config(const ConfigNode& tree, const std::string& init_from, ReadFor purpose) {
  if (purpose == ReadFor::kContinuing) {
    const fs::path own = fs::path(scalar(tree, "directory", RunConfig{}.directory)) / "config.yaml";
    return fs::exists(own) ? own : fs::path();
  }
  const fs::path from = init_from;
  if (purpose == ReadFor::kPlanning && !fs::exists(from) && gives_model(tree)) return {};
  check<ConfigError>(!fs::exists(from / "config.json") || fs::exists(from / "checkpoints"),
                     "init_from: ", init_from,
                     " is a Hugging Face directory; bring it in with "
                     "infini import ",
                     init_from, " OUT, then begin with init_from=OUT");
  return checkpoint_directory(from) / "config.yaml";
}

}  // namespace

RunConfig read_run_config(const fs::path& file, const std::vector<std::string>& overrides,
                          ReadFor purpose) {
  ConfigNode tree = read_config_tree(file);
  for (const std::string& assignment : overrides) apply_override(tree, assignment);
  const std::string init_from = scalar(tree, "init_from");
  if (init_from.empty()) return read_config<RunConfig>(tree);
  const fs::path base = base_config(tree, init_from, purpose);
  if (!base.empty()) {
    const ConfigNode begun = parse_config(read_file(base), base.string());
    for (const char* section : {"model", "origin"})
      if (const ConfigNode* const node = begun.find(section)) complete(child(tree, section), *node);
  }
  return read_config<RunConfig>(tree);
}

}  // namespace infini
