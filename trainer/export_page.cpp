#include "trainer/export_page.h"

#include "trainer/pretrained_names.h"

namespace infini {

std::string export_page(const ModelConfig& model) {
  const std::string shapes = text(
      "D = ", model.d_model, ", H = ", model.heads, " query heads, Hk = ", model.key_value_heads(),
      " key/value heads, K = ", model.head_width(), ", F = ", model.inner_width(),
      ", N = ", model.vocabulary, ", ", model.layers, " layers");
  std::string rows;
  const auto row = [&](const std::string& name, const std::string& shape, const std::string& what) {
    rows += text("| `", name, "` | ", shape, " | ", what, " |\n");
  };
  const auto of_layer = [&](const std::string& ours, const std::string& shape,
                            const std::string& what) {
    std::string name = pretrained_name("blocks.0." + ours);
    name.replace(name.find(".0."), 3, ".I.");
    row(name, shape, what);
  };
  row(pretrained_name("embedding.weight"), "[N, D]",
      model.tied ? "embedding, and the output's matrix" : "embedding");
  of_layer("attention_norm.weight", "[D]", "RMSNorm before attention");
  of_layer("attention.query.weight", "[H K, D]", "queries, head after head");
  of_layer("attention.key.weight", "[Hk K, D]", "keys");
  of_layer("attention.value.weight", "[Hk K, D]", "values");
  if (model.projection_biases) {
    of_layer("attention.query.bias", "[H K]", "added to the queries");
    of_layer("attention.key.bias", "[Hk K]", "added to the keys");
    of_layer("attention.value.bias", "[Hk K]", "added to the values");
  }
  if (model.head_norms) {
    of_layer("attention.query_norm.weight", "[K]", "RMSNorm of every query head");
    of_layer("attention.key_norm.weight", "[K]", "RMSNorm of every key head");
  }
  of_layer("attention.output.weight", "[D, H K]", "output projection");
  if (model.memory != MemoryRule::kNone)
    of_layer("attention.gate", "[H]", "beta: the gate of each query head, fp32");
  of_layer("feed_forward_norm.weight", "[D]", "RMSNorm before the feed-forward part");
  if (model.has_gated_activation())
    of_layer("feed_forward.gate.weight", "[F, D]",
             model.activation == Activation::kSwiglu ? "its gate, through silu"
                                                     : "its gate, through gelu (tanh form)");
  of_layer("feed_forward.up.weight", "[F, D]", "what the gate multiplies");
  of_layer("feed_forward.down.weight", "[D, F]", "back to the stream");
  row(pretrained_name("final_norm.weight"), "[D]", "RMSNorm before the output");
  if (!model.tied) row(pretrained_name("head.weight"), "[N, D]", "output");

  return text(
      "# An Infini-Transformer\n\n"
      "Weights of a transformer whose attention keeps a compressive memory of everything before "
      "the "
      "current segment (Munkhdalai, Faruqui, Gopal 2024). `config.json` has the keys of the family "
      "it came from, and under `infini` all keys of the model: `infini import` reads this folder "
      "as it is. Stock transformers reads the same weights without the gates, and so without a "
      "memory.\n\n",
      shapes,
      "; matrices are [outputs, inputs].\n\n"
      "| tensor | shape | what |\n|---|---|---|\n",
      rows,
      "\nIn each layer a text is read in segments of `segment_tokens`. With sigma(x) = ELU(x) + 1, "
      "per head, and before rotary positions, which restart in every segment:\n\n"
      "```\n"
      "read   A_mem = sigma(Q) M / max(sigma(Q) z, memory_eps)      0 while nothing was written\n"
      "mix    A = sigmoid(beta) A_mem + (1 - sigmoid(beta)) A_dot   A_dot: causal attention inside "
      "the segment\n"
      "write  M += sigma(K)^T (V - R),  z += sum of sigma(K)        R: 0 (memory linear), or what "
      "the memory reads for K (delta)\n"
      "```\n\n"
      "The state, M [K, K] and z [K] for each key/value head, belongs to the text, not to the "
      "model. With `first_segment` bypass A is A_dot itself while nothing was written.\n");
}

}  // namespace infini
