// The models of tests/pretrained, which transformers wrote with the logits it computes.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "tests/model/tiny_model.h"
#include "trainer/import_model.h"
#include "trainer/loaded_model.h"

namespace infini {

inline const std::string kFamilies[] = {"llama", "llama-tied", "mistral", "qwen2", "qwen3", "gemma"};

inline std::string family_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::ranges::replace(name, '-', '_');
  return name;
}

inline std::filesystem::path pretrained(const std::string& family) {
  return std::filesystem::path(INFINI_SOURCE_DIR) / "tests/pretrained" / family;
}

// A text, and the logits after each of its tokens, row by row.
struct ReadText {
  std::vector<std::int32_t> tokens;
  std::vector<double> logits;
};
inline ReadText original_logits(const std::string& family) {
  std::ifstream file(pretrained(family) / "logits.json");
  const nlohmann::json json = nlohmann::json::parse(file);
  ReadText result{.tokens = json.at("tokens"), .logits = {}};
  for (const auto& row : json.at("logits"))
    for (const double logit : row) result.logits.push_back(logit);
  return result;
}

// An import, or any checkpoint, that computes in fp32 on the CPU.
inline LoadedModel load_fp32(const std::filesystem::path& path,
                             std::vector<std::string> overrides = {}) {
  overrides.insert(overrides.end(), {"train.compute=fp32", "device=cpu"});
  return load_model(path, overrides);
}

inline std::vector<double> logits_of(const InfiniTransformer& model,
                                     const std::vector<std::int32_t>& tokens) {
  const auto count = static_cast<std::int64_t>(tokens.size());
  const Rows rows{.segment_tokens = model.config().segment_tokens,
                  .tokens = Tensor::of(tokens, {1, count}),
                  .targets = Tensor::of(tokens, {1, count}),
                  .weights = {},
                  .resets = {},
                  .keep = {}};
  return model.logits(hidden_of(model, rows).at(0, 0, count).clone()).to_vector<double>();
}

}  // namespace infini
