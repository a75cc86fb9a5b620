#include "trainer/pretrained_names.h"

#include <string_view>
#include <utility>

#include "tensor/error.h"

namespace infini {
namespace {

constexpr std::pair<std::string_view, std::string_view> kWhole[] = {
    {"embedding.weight", "model.embed_tokens.weight"},
    {"final_norm.weight", "model.norm.weight"},
    {"head.weight", "lm_head.weight"},
};
constexpr std::pair<std::string_view, std::string_view> kOfBlocks[] = {
    {"attention_norm.weight", "input_layernorm.weight"},
    {"attention.query.weight", "self_attn.q_proj.weight"},
    {"attention.key.weight", "self_attn.k_proj.weight"},
    {"attention.value.weight", "self_attn.v_proj.weight"},
    {"attention.output.weight", "self_attn.o_proj.weight"},
    {"attention.query.bias", "self_attn.q_proj.bias"},
    {"attention.key.bias", "self_attn.k_proj.bias"},
    {"attention.value.bias", "self_attn.v_proj.bias"},
    {"attention.query_norm.weight", "self_attn.q_norm.weight"},
    {"attention.key_norm.weight", "self_attn.k_norm.weight"},
    {"attention.gate", "self_attn.gate"},
    {"feed_forward_norm.weight", "post_attention_layernorm.weight"},
    {"feed_forward.gate.weight", "mlp.gate_proj.weight"},
    {"feed_forward.up.weight", "mlp.up_proj.weight"},
    {"feed_forward.down.weight", "mlp.down_proj.weight"},
};
constexpr std::string_view kBlocks = "blocks.";

}  // namespace

std::string pretrained_name(const std::string& parameter) {
  const std::string_view name = parameter;
  for (const auto& [ours, theirs] : kWhole)
    if (name == ours) return std::string(theirs);
  if (name.starts_with(kBlocks)) {
    const std::size_t dot = name.find('.', kBlocks.size());
    for (const auto& [ours, theirs] : kOfBlocks)
      if (name.substr(dot + 1) == ours)
        return text("model.layers.", name.substr(kBlocks.size(), dot - kBlocks.size()), ".",
                    theirs);
  }
  throw Error(text(parameter, " has no name in a Hugging Face directory"));
}

}  // namespace infini
