// Rotary positions in a Hugging Face config.json: rope_theta and rope_scaling, or rope_parameters,
// which newer versions write instead.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "model/config.h"

namespace infini {

// Sets the rotary keys of `model`. `positions`: max_position_embeddings. Throws ConfigError naming
// the file `who` for scalings that this build does not compute.
void read_rope(const nlohmann::ordered_json& root, const std::string& who, std::int64_t positions,
               ModelConfig& model, std::vector<std::string>& notes);

// Makes config.json say what the model has; leaves what says so already.
void write_rope(const ModelConfig& model, nlohmann::ordered_json& root);

}  // namespace infini
