#include "trainer/pretrained_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "data/durable_file.h"
#include "tensor/enum_names.h"
#include "trainer/config_reader.h"
#include "trainer/pretrained_rope.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::uintmax_t kMostBytes = 1 << 18;
constexpr int kMostLevels = 16;
constexpr std::int64_t kSegmentTokens = 2048;  // the paper's
constexpr double kClosedGate = -15;            // sigmoid(-15) is 3e-7: nothing to fp32 beside 1

struct Family {
  std::string_view architecture, type;
  bool projection_biases = false, head_norms = false;
  bool gemma = false;  // geglu, norms of 1 + weight, embeddings times the root of their width
  // Where config.json says nothing:
  std::int64_t key_value_heads = 0;  // 0: as many as heads
  std::int64_t window = 0;           // sliding_window; 0: none
  std::int64_t head_width = 0;       // 0: hidden_size / heads
  bool tied = false;

  Activation activation() const { return gemma ? Activation::kGeglu : Activation::kSwiglu; }
  double embedding_scale(int width) const { return gemma ? std::sqrt(width) : 1; }
  // Whether it computes what this model does without its memory.
  bool computes(const ModelConfig& model) const {
    return projection_biases == model.projection_biases && head_norms == model.head_norms &&
           activation() == model.activation && gemma == model.offset_norms &&
           embedding_scale(model.d_model) == model.embedding_scale;
  }
};
constexpr Family kFamilies[] = {
    {.architecture = "LlamaForCausalLM", .type = "llama"},
    {.architecture = "MistralForCausalLM", .type = "mistral", .key_value_heads = 8, .window = 4096},
    {.architecture = "Qwen2ForCausalLM",
     .type = "qwen2",
     .projection_biases = true,
     .key_value_heads = 32},
    {.architecture = "Qwen3ForCausalLM",
     .type = "qwen3",
     .head_norms = true,
     .key_value_heads = 32,
     .head_width = 128},
    {.architecture = "GemmaForCausalLM",
     .type = "gemma",
     .gemma = true,
     .key_value_heads = 16,
     .head_width = 256,
     .tied = true},
};
constexpr const char* kSilu = "silu";
constexpr const char* kTanhGelu = "gelu_pytorch_tanh";
constexpr const char* kOurs = "infini";

Json parse_json(const std::string& json, const std::string& who) {
  const auto limit = [&](int depth, nlohmann::detail::parse_event_t, Json&) {
    check<DataError>(depth <= kMostLevels, who, ": is nested more than ", kMostLevels,
                     " levels deep");
    return true;
  };
  const Json root = Json::parse(json, limit, false);
  check<DataError>(root.is_object(), who, ": is not a JSON object");
  return root;
}

// The keys of one file, read with messages that name them.
class Keys {
 public:
  Keys(const Json& root, std::string who) : root_(root), who_(std::move(who)) {}

  bool has(const char* key) const { return root_.contains(key) && !root_[key].is_null(); }
  bool flag(const char* key, bool otherwise) const {
    if (!has(key)) return otherwise;
    check<ConfigError>(root_[key].is_boolean(), who_, ": ", key, " is ", said(key),
                       ", expected true or false");
    return root_[key];
  }
  // At least 1; without `otherwise` the key must be there.
  int count(const char* key, std::int64_t otherwise = -1) const {
    check<ConfigError>(has(key) || otherwise >= 0, who_, ": has no ", key);
    if (!has(key)) return static_cast<int>(otherwise);
    constexpr std::int64_t kMost = 1 << 30;
    const Json& value = root_[key];
    check<ConfigError>(value.is_number_integer() && value >= 1 && value <= kMost, who_, ": ", key,
                       " is ", said(key), ", expected a whole number from 1 to ", kMost);
    return value;
  }
  double number(const char* key, double otherwise) const {
    if (!has(key)) return otherwise;
    check<ConfigError>(root_[key].is_number(), who_, ": ", key, " is ", said(key),
                       ", expected a number");
    return root_[key];
  }
  std::string word(const char* key, const std::string& otherwise) const {
    if (!has(key)) return otherwise;
    check<ConfigError>(root_[key].is_string(), who_, ": ", key, " is ", said(key),
                       ", expected text");
    return root_[key];
  }
  // Whatever else it says, this build would compute another model.
  void must_be(const char* key, const Json& value) const {
    check<ConfigError>(!has(key) || root_[key] == value, who_, ": ", key, " is ", said(key),
                       ", this build computes only ", value.dump());
  }
  std::string said(const char* key) const {
    return has(key) ? root_[key].dump().substr(0, 60) : "absent";
  }
  const std::string& who() const { return who_; }

 private:
  const Json& root_;
  std::string who_;
};

const Family& family_of(const Json& root, const std::string& who) {
  std::string known;
  for (const Family& family : kFamilies)
    known += text(known.empty() ? "" : ", ", family.architecture);
  const bool listed = root.contains("architectures") && root["architectures"].is_array() &&
                      root["architectures"].size() == 1 && root["architectures"][0].is_string();
  check<ConfigError>(listed, who, ": architectures names no model; known are ", known);
  const std::string name = root["architectures"][0];
  const auto found = std::ranges::find(kFamilies, name, &Family::architecture);
  check<ConfigError>(found != std::end(kFamilies), who, ": unknown architecture ",
                     name.substr(0, 60), "; known are ", known);
  return *found;
}

// The same model inside a segment, with a memory that nobody reads yet.
ModelConfig closed_memory() {
  ModelConfig model;
  model.first_segment = FirstSegment::kBypass;
  model.gate_mean = kClosedGate;
  model.gate_deviation = 0;
  return model;
}

void refuse_other_models(const Keys& keys, const Family& family) {
  // Gemma's first files say gelu and mean its tanh form.
  if (!family.gemma || keys.word("hidden_act", kTanhGelu) != "gelu")
    keys.must_be("hidden_act", family.gemma ? kTanhGelu : kSilu);
  if (family.gemma) keys.must_be("hidden_activation", kTanhGelu);
  keys.must_be("use_bidirectional_attention", false);
  keys.must_be("attention_bias", false);
  keys.must_be("mlp_bias", false);
  keys.must_be("partial_rotary_factor", 1.0);
  check<ConfigError>(!keys.has("quantization_config"), keys.who(),
                     ": has a quantization_config; only weights in fp32, bf16 or fp16 are read");
}

PretrainedConfig of_family(const Json& root, const std::string& who) {
  const Keys keys(root, who);
  const Family& family = family_of(root, who);
  refuse_other_models(keys, family);
  PretrainedConfig result;
  result.model = closed_memory();
  result.json = root.dump();
  ModelConfig& model = result.model;
  model.layers = keys.count("num_hidden_layers");
  constexpr int kMostLayers = 10'000;
  check<ConfigError>(model.layers <= kMostLayers, who, ": num_hidden_layers is ", model.layers,
                     ", at most ", kMostLayers, " are read");
  model.d_model = keys.count("hidden_size");
  model.heads = keys.count("num_attention_heads");
  model.kv_heads = keys.count("num_key_value_heads",
                              family.key_value_heads ? family.key_value_heads : model.heads);
  model.d_head =
      keys.count("head_dim", family.head_width ? family.head_width : model.d_model / model.heads);
  model.feed_forward = keys.count("intermediate_size");
  model.vocabulary = keys.count("vocab_size");
  model.norm_eps = keys.number("rms_norm_eps", 1e-6);
  model.tied = keys.flag("tie_word_embeddings", family.tied);
  model.activation = family.activation();
  model.offset_norms = family.gemma;
  model.embedding_scale = family.embedding_scale(model.d_model);
  model.projection_biases = family.projection_biases;
  model.head_norms = family.head_norms;
  result.positions = keys.count("max_position_embeddings", 2048);
  const bool has_window =
      keys.flag("use_sliding_window", !family.projection_biases && !family.head_norms);
  const bool says_none = root.contains("sliding_window") && root["sliding_window"].is_null();
  if (has_window && !says_none) result.window = keys.count("sliding_window", family.window);
  read_rope(root, who, result.positions, model, result.notes);
  model.segment_tokens = std::min(kSegmentTokens, result.positions);
  if (result.window > 0) model.segment_tokens = std::min(model.segment_tokens, result.window);
  try {
    model.validate();
  } catch (const ConfigError& error) {
    throw ConfigError(text(who, ": ", error.what()));
  }
  return result;
}

// All keys of a configuration as JSON.
class JsonWriter {
 public:
  template <class T>
  void operator()(std::string_view name, T& member, std::string_view /*help*/) {
    Json& value = root_[std::string(name)];
    if constexpr (requires(JsonWriter & writer) { member.visit(writer); }) {
      JsonWriter inner;
      member.visit(inner);
      value = inner.root_;
    } else if constexpr (NamedEnum<T>) {
      value = name_of(member);
    } else {
      value = member;
    }
  }
  Json take() { return std::move(root_); }

 private:
  Json root_ = Json::object();
};

// The family that computes what this model computes without its memory, or what stands against it.
struct Match {
  const Family* family = nullptr;
  std::string obstacle;
};
Match match(const ModelConfig& model, const Json& origin) {
  const auto no = [](const auto&... why) {
    return Match{.family = nullptr, .obstacle = text(why...)};
  };
  if (model.architecture != Architecture::kInfini)
    return no("model.architecture = ", model.architecture_name());
  if (!model.has_gated_activation()) return no("model.activation is not swiglu");
  if (model.softmax_scale != SoftmaxScale::kHead) return no("model.softmax_scale is not d_head");
  if (model.head_norms && model.projection_biases)
    return no("model.head_norms and model.projection_biases together");
  for (const Family& family : kFamilies)
    if (origin.contains("architectures") && origin["architectures"] == Json{family.architecture} &&
        family.computes(model))
      return {.family = &family, .obstacle = ""};
  for (const Family& family : kFamilies)
    if (family.computes(model)) return {.family = &family, .obstacle = ""};
  return no("model.activation = ", name_of(model.activation),
            ", offset_norms = ", model.offset_norms ? "true" : "false",
            " and embedding_scale = ", model.embedding_scale, " together");
}

void write_family(const ModelConfig& model, const Family& family, Json& root) {
  root["architectures"] = {family.architecture};
  root["model_type"] = family.type;
  root["hidden_act"] = family.gemma ? kTanhGelu : kSilu;
  const bool width_follows = root.contains("hidden_size") && !root.contains("head_dim") &&
                             model.heads * model.head_width() == model.d_model;
  if (!width_follows) root["head_dim"] = model.head_width();
  root["hidden_size"] = model.d_model;
  root["intermediate_size"] = model.inner_width();
  root["num_hidden_layers"] = model.layers;
  root["num_attention_heads"] = model.heads;
  root["num_key_value_heads"] = model.key_value_heads();
  root["vocab_size"] = model.vocabulary;
  root["rms_norm_eps"] = model.norm_eps;
  root["tie_word_embeddings"] = model.tied;
  if (!root.contains("max_position_embeddings"))
    root["max_position_embeddings"] = model.segment_tokens;
  if (family.window > 0 && !root.contains("sliding_window")) root["sliding_window"] = nullptr;
  write_rope(model, root);
}

}  // namespace

PretrainedConfig read_pretrained_config(const fs::path& directory) {
  const fs::path path = directory / "config.json";
  const std::string who = path.string();
  check<ConfigError>(fs::is_directory(directory), directory.string(), ": no such folder");
  check<ConfigError>(fs::exists(path), directory.string(),
                     ": holds no config.json; expected a Hugging Face directory");
  check<DataError>(fs::file_size(path) <= kMostBytes, who, ": has ", fs::file_size(path),
                   " bytes, at most ", kMostBytes, " are read");
  Json root = parse_json(read_file(path), who);
  if (!root.contains(kOurs)) return of_family(root, who);
  PretrainedConfig result;
  result.model = read_config_text<ModelConfig>(root[kOurs].dump(), who + ": infini");
  check<ConfigError>(result.model.architecture == Architecture::kInfini, who,
                     ": model.architecture = ", result.model.architecture_name(),
                     " is not imported");
  result.positions = result.model.segment_tokens;
  result.has_memory = result.model.memory != MemoryRule::kNone;
  root.erase(kOurs);
  if (!root.contains("model_type") || root["model_type"] != kOurs) result.json = root.dump();
  return result;
}

std::string export_config(const ModelConfig& model, const std::string& origin,
                          std::string_view dtype, bool with_memory) {
  Json root = origin.empty() ? Json::object() : parse_json(origin, "origin.config");
  const Match found = match(model, root);
  check<ConfigError>(found.family || with_memory,
                     "export: no family of transformers computes this model: ", found.obstacle,
                     "; --with-memory writes it for this program alone");
  if (found.family) {
    write_family(model, *found.family, root);
  } else {
    root["architectures"] = {"InfiniForCausalLM"};
    root["model_type"] = kOurs;
  }
  root[root.contains("dtype") ? "dtype" : "torch_dtype"] = dtype == "fp32"   ? "float32"
                                                           : dtype == "bf16" ? "bfloat16"
                                                                             : "float16";
  if (with_memory) {
    JsonWriter writer;
    ModelConfig all = model;
    all.visit(writer);
    root[kOurs] = writer.take();
  }
  return root.dump(2) + "\n";
}

}  // namespace infini
