// config.json of a Hugging Face directory as a configuration of ours, and back.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "model/config.h"

namespace infini {

struct PretrainedConfig {
  ModelConfig model;               // what config.json says nothing about as an import sets it
  std::int64_t positions = 0;      // that it was trained for
  std::int64_t window = 0;         // tokens that its attention sees; 0: all
  bool has_memory = false;         // it is an export of ours with gates
  std::string json;                // the text itself, without white space
  std::vector<std::string> notes;  // what the user should know
};

// Llama (1 to 3), Mistral, Qwen2 (and 2.5), Qwen3, and exports of ours. Throws ConfigError naming
// the file and the key for what this build does not compute, DataError for a file that is none.
PretrainedConfig read_pretrained_config(const std::filesystem::path& directory);

// config.json of an export. `origin`: that of the import, whose keys stay, or empty. Plain: of a
// model without gates in the family that computes the same; throws ConfigError naming the key where
// none does. With memory: the same with all our keys under "infini".
std::string export_config(const ModelConfig& model, const std::string& origin,
                          std::string_view dtype, bool with_memory);

}  // namespace infini
