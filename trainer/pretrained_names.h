// What Hugging Face's Llama and its kin call our parameters.
#pragma once

#include <string>

namespace infini {

// "blocks.3.attention.query.weight" is "model.layers.3.self_attn.q_proj.weight". Throws for a name
// that is none of a model's.
std::string pretrained_name(const std::string& parameter);

}  // namespace infini
