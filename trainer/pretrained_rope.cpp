#include "trainer/pretrained_rope.h"

#include <nlohmann/json.hpp>

namespace infini {
namespace {

using Json = nlohmann::ordered_json;

const Json* object(const Json& root, const char* key, const std::string& who) {
  if (!root.contains(key) || root[key].is_null()) return nullptr;
  check<ConfigError>(root[key].is_object(), who, ": ", key, " is ", root[key].dump().substr(0, 60),
                     ", expected an object");
  return &root[key];
}

double number(const Json& scaling, const char* key, const std::string& who) {
  check<ConfigError>(scaling.contains(key) && scaling[key].is_number(), who,
                     ": its rope scaling has no number ", key);
  return scaling[key];
}

std::string type_of(const Json& scaling, const std::string& who) {
  for (const char* key : {"rope_type", "type"})
    if (scaling.contains(key)) {
      check<ConfigError>(scaling[key].is_string(), who, ": ", key,
                         " of its rope scaling is no text");
      return scaling[key];
    }
  for (const auto& [key, value] : scaling.items())
    check<ConfigError>(!value.is_object(), who, ": has rope parameters by kind of layer (",
                       key.substr(0, 60), "), this build has the same in all");
  return "default";
}

}  // namespace

void read_rope(const Json& root, const std::string& who, std::int64_t positions, ModelConfig& model,
               std::vector<std::string>& notes) {
  const Json* const parameters = object(root, "rope_parameters", who);
  if (parameters && parameters->contains("rope_theta"))
    model.rope_base = number(*parameters, "rope_theta", who);
  else if (root.contains("rope_theta"))
    model.rope_base = number(root, "rope_theta", who);
  check<ConfigError>(model.rope_base > 1, who, ": rope_theta must be above 1, got ",
                     model.rope_base);

  const bool partial = parameters && parameters->contains("partial_rotary_factor") &&
                       (*parameters)["partial_rotary_factor"] != 1.0;
  check<ConfigError>(!partial, who,
                     ": partial_rotary_factor is not 1: this build turns whole heads");

  const Json* const older = object(root, "rope_scaling", who);
  const Json* const scaling = older ? older : parameters;
  if (!scaling) return;
  const std::string type = type_of(*scaling, who);
  RopeScalingConfig& rope = model.rope_scaling;
  if (type == "default") return;
  if (type == "dynamic") {
    notes.push_back(text("dynamic rope scaling acts beyond ", positions,
                         " positions only, and positions restart in every segment"));
    return;
  }
  check<ConfigError>(type == "linear" || type == "llama3", who, ": rope scaling of type ",
                     type.substr(0, 60),
                     ", this build computes default, linear, dynamic and llama3");
  rope.factor = number(*scaling, "factor", who);
  rope.kind = RotaryScaling::Kind::kLinear;
  if (type == "linear") return rope.validate();
  rope.kind = RotaryScaling::Kind::kLlama3;
  rope.slow_turns = number(*scaling, "low_freq_factor", who);
  rope.fast_turns = number(*scaling, "high_freq_factor", who);
  constexpr double kMost = 1 << 30;
  const double original = number(*scaling, "original_max_position_embeddings", who);
  check<ConfigError>(original >= 1 && original <= kMost, who,
                     ": original_max_position_embeddings is ", original);
  rope.original_tokens = static_cast<std::int64_t>(original);
  rope.validate();
}

void write_rope(const ModelConfig& model, Json& root) {
  ModelConfig said;
  std::vector<std::string> ignored;
  const bool says_something = root.contains("rope_theta") || root.contains("rope_parameters");
  if (says_something) read_rope(root, "origin.config", 0, said, ignored);
  const RopeScalingConfig &now = model.rope_scaling, &then = said.rope_scaling;
  const bool same = says_something && said.rope_base == model.rope_base && now.kind == then.kind &&
                    now.factor == then.factor && now.slow_turns == then.slow_turns &&
                    now.fast_turns == then.fast_turns &&
                    now.original_tokens == then.original_tokens;
  if (same) return;
  root.erase("rope_parameters");
  root.erase("rope_scaling");
  root["rope_theta"] = model.rope_base;
  if (now.kind == RotaryScaling::Kind::kLinear)
    root["rope_scaling"] = {{"rope_type", "linear"}, {"factor", now.factor}};
  if (now.kind == RotaryScaling::Kind::kLlama3)
    root["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", now.factor},
                            {"low_freq_factor", now.slow_turns},
                            {"high_freq_factor", now.fast_turns},
                            {"original_max_position_embeddings", now.original_tokens}};
}

}  // namespace infini
