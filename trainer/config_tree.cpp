#include "trainer/config_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <fstream>
#include <map>
#include <sstream>
#include <utility>

#include "tensor/error.h"

namespace infini {
namespace {

constexpr std::size_t kMaxBytes = 1 << 20;
constexpr std::size_t kMaxDepth = 32;
constexpr std::size_t kMaxAliases = 16;
constexpr std::size_t kMaxNodes = 20'000;

std::size_t count_nodes(const ConfigNode& node) {
  std::size_t count = 1;
  for (const ConfigNode& child : node.children) count += count_nodes(child);
  return count;
}

// Builds the tree from the parser's events. Unlike YAML::Load this sees every alias and every
// duplicate key before anything has been expanded.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(std::string source) : source_(std::move(source)) {}

  ConfigNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(node(ConfigNode::Kind::kNull, mark), anchor, mark);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_tag(tag, mark);
    if (expects_key()) {
      check<ConfigError>(!value.empty(), where(mark), ": a key must have a name");
      if (const ConfigNode* first = open_.back().node.find(value))
        throw ConfigError(
            text(where(mark), ": key \"", value, "\" appears twice, first at ", first->where));
      open_.back().key = value;
      return;
    }
    ConfigNode scalar = node(ConfigNode::Kind::kScalar, mark);
    scalar.text = value;
    scalar.quoted = tag == "!";
    add(std::move(scalar), anchor, mark);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    check<ConfigError>(++aliases_ <= kMaxAliases, where(mark), ": more than ", kMaxAliases,
                       " aliases (*name); write the values out");
    const auto target = anchors_.find(anchor);
    check<ConfigError>(target != anchors_.end(), where(mark), ": an alias inside its own anchor");
    ConfigNode copy = target->second;
    nodes_ += count_nodes(copy) - 1;
    copy.key.clear();
    add(std::move(copy), 0, mark);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    start(ConfigNode::Kind::kSequence, tag, anchor, mark);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    start(ConfigNode::Kind::kMap, tag, anchor, mark);
  }
  void OnSequenceEnd() override { finish(); }
  void OnMapEnd() override { finish(); }

 private:
  struct Open {
    ConfigNode node;
    YAML::anchor_t anchor;
    YAML::Mark mark;
    std::string key;  // of the value that comes next; empty while a map waits for a key
  };

  std::string where(const YAML::Mark& mark) const { return text(source_, ":", mark.line + 1); }

  ConfigNode node(ConfigNode::Kind kind, const YAML::Mark& mark) const {
    ConfigNode result;
    result.kind = kind;
    result.where = where(mark);
    return result;
  }

  bool expects_key() const {
    return !open_.empty() && open_.back().node.kind == ConfigNode::Kind::kMap &&
           open_.back().key.empty();
  }

  void refuse_tag(const std::string& tag, const YAML::Mark& mark) const {
    check<ConfigError>(tag.empty() || tag == "?" || tag == "!", where(mark), ": tag ", tag,
                       " is not understood here; plain YAML is expected");
  }

  void start(ConfigNode::Kind kind, const std::string& tag, YAML::anchor_t anchor,
             const YAML::Mark& mark) {
    refuse_tag(tag, mark);
    refuse_as_key(mark);
    check<ConfigError>(open_.size() < kMaxDepth, where(mark), ": nested deeper than ", kMaxDepth,
                       " levels");
    open_.push_back({node(kind, mark), anchor, mark, ""});
  }

  void finish() {
    Open done = std::move(open_.back());
    open_.pop_back();
    add(std::move(done.node), done.anchor, done.mark);
  }

  void add(ConfigNode value, YAML::anchor_t anchor, const YAML::Mark& mark) {
    refuse_as_key(mark);
    check<ConfigError>(++nodes_ <= kMaxNodes, where(mark), ": more than ", kMaxNodes, " values");
    if (anchor != 0) anchors_[anchor] = value;
    if (open_.empty()) {
      root_ = std::move(value);
      return;
    }
    value.key = std::exchange(open_.back().key, "");
    open_.back().node.children.push_back(std::move(value));
  }

  void refuse_as_key(const YAML::Mark& mark) const {
    check<ConfigError>(!expects_key(), where(mark), ": a key must be a name");
  }

  std::string source_;
  ConfigNode root_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, ConfigNode> anchors_;
  std::size_t aliases_ = 0;
  std::size_t nodes_ = 0;
};

// The entry of a map, created if it is not there.
ConfigNode& entry(ConfigNode& map, const std::string& name) {
  for (ConfigNode& child : map.children)
    if (child.key == name) return child;
  ConfigNode& created = map.children.emplace_back();
  created.key = name;
  created.where = "command line";
  return created;
}

}  // namespace

const ConfigNode* ConfigNode::find(std::string_view name) const {
  if (kind != Kind::kMap) return nullptr;
  for (const ConfigNode& child : children)
    if (child.key == name) return &child;
  return nullptr;
}

std::string described(const ConfigNode& node) {
  switch (node.kind) {
    case ConfigNode::Kind::kNull:
      return "nothing";
    case ConfigNode::Kind::kSequence:
      return "a list";
    case ConfigNode::Kind::kMap:
      return "a group of keys";
    case ConfigNode::Kind::kScalar:
      break;
  }
  return node.quoted ? text("the text \"", node.text, "\"") : text("\"", node.text, "\"");
}

ConfigNode parse_config(std::string_view yaml, const std::string& source) {
  check<ConfigError>(yaml.size() <= kMaxBytes, source, ": ", yaml.size(),
                     " bytes are too many for a configuration, at most ", kMaxBytes);
  check<ConfigError>(yaml.find('\0') == yaml.npos, source, ": contains a zero byte, is not YAML");
  TreeBuilder builder(source);
  try {
    std::istringstream in{std::string(yaml)};
    YAML::Parser parser(in);
    parser.HandleNextDocument(builder);
    TreeBuilder more(source);
    check<ConfigError>(!parser.HandleNextDocument(more), source,
                       ": holds more than one YAML document");
  } catch (const YAML::Exception& error) {
    throw ConfigError(text(source, ":", error.mark.line + 1, ": not YAML: ", error.msg));
  }
  ConfigNode root = builder.take();
  if (root.kind == ConfigNode::Kind::kNull) root.kind = ConfigNode::Kind::kMap;
  check<ConfigError>(root.kind == ConfigNode::Kind::kMap, source,
                     ": expected keys and values, got ", described(root));
  if (root.where.empty()) root.where = text(source, ":1");
  return root;
}

ConfigNode read_config_tree(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  check<ConfigError>(in.good() && !std::filesystem::is_directory(file), file.string(),
                     ": no such configuration file");
  std::string yaml(kMaxBytes + 1, '\0');
  in.read(yaml.data(), static_cast<std::streamsize>(yaml.size()));
  yaml.resize(static_cast<std::size_t>(in.gcount()));
  return parse_config(yaml, file.string());
}

void apply_override(ConfigNode& root, const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  check<ConfigError>(equals != assignment.npos && equals > 0, "command line: \"", assignment,
                     "\" is not understood, expected key=value, as in optim.learning_rate=0.01");
  const std::string path = assignment.substr(0, equals);
  const std::string value = assignment.substr(equals + 1);

  // Lists, groups and quotes are YAML; anything else is taken as it was typed, so that paths and
  // patterns need no quoting.
  ConfigNode node;
  if (!value.empty() && std::string_view("[{\"'").find(value[0]) != std::string_view::npos) {
    node = parse_config(text("value: ", value), "command line").children.at(0);
  } else {
    node.kind = ConfigNode::Kind::kScalar;
    node.text = value;
    node.quoted = value.empty();
  }
  node.where = "command line";

  ConfigNode* target = &root;
  std::istringstream parts(path);
  for (std::string part; std::getline(parts, part, '.');) {
    check<ConfigError>(!part.empty(), "command line: \"", path,
                       "\" has an empty name between dots");
    if (target->kind != ConfigNode::Kind::kMap) {  // `optim:` with nothing below, or a mistake
      check<ConfigError>(target->kind == ConfigNode::Kind::kNull, "command line: ", path, ": ",
                         target->key, " is ", described(*target), " and has no key ", part);
      target->kind = ConfigNode::Kind::kMap;
    }
    target = &entry(*target, part);
  }
  node.key = target->key;
  *target = std::move(node);
}

}  // namespace infini
