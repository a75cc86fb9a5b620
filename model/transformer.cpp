#include "model/transformer.h"

#include "tensor/ops/embedding.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/product.h"
#include "tensor/ops/rotary.h"
#include "tensor/recompute.h"

namespace infini {
namespace {

std::string block_prefix(int layer) { return text("blocks.", layer, "."); }

ParameterSpec norm_spec(const std::string& name, int width) {
  return {.name = name, .shape = {width}, .mean = 1, .full_precision = true};
}

}  // namespace

std::vector<ParameterSpec> parameter_specs(const ModelConfig& config) {
  check<ConfigError>(config.vocabulary > 0, "model.vocabulary is not known yet");
  const Shape table{config.vocabulary, config.d_model};
  const double deviation = config.init_deviation > 0 ? config.init_deviation : 0.02;
  std::vector<ParameterSpec> specs{
      {.name = "embedding.weight", .shape = table, .deviation = deviation}};
  for (int layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = block_prefix(layer);
    InfiniAttention::declare(config, prefix + "attention.", specs);
    FeedForward::declare(config, prefix + "feed_forward.", specs);
    specs.push_back(norm_spec(prefix + "attention_norm.weight", config.d_model));
    specs.push_back(norm_spec(prefix + "feed_forward_norm.weight", config.d_model));
  }
  specs.push_back(norm_spec("final_norm.weight", config.d_model));
  if (!config.tied)
    specs.push_back({.name = "head.weight", .shape = table, .deviation = deviation});
  return specs;
}

Stream add_norm(const Pass& pass, const Stream& stream, const Parameter& weight, double eps) {
  if (!stream.branch) return {.sum = stream.sum, .branch = rms_norm(stream.sum, pass(weight), eps)};
  const ResidualNorm out = add_rms_norm(stream.sum, stream.branch, pass(weight), eps);
  return {.sum = out.sum, .branch = out.y};
}

Block::Block(const ModelConfig& config, const Parameters& parameters, const std::string& prefix,
             const Tensor& rotary_table)
    : norm_eps(config.norm_eps),
      attention_norm(parameters[prefix + "attention_norm.weight"]),
      feed_forward_norm(parameters[prefix + "feed_forward_norm.weight"]),
      attention(config, parameters, prefix + "attention.", rotary_table),
      feed_forward(config, parameters, prefix + "feed_forward.") {}

Block::Output Block::operator()(const Pass& pass, const Stream& stream, const Span& span,
                                const MemoryState& memory) const {
  const Stream before = add_norm(pass, stream, attention_norm, norm_eps);
  const InfiniAttention::Output attended = attention(pass, before.branch, span, memory);
  const Stream middle =
      add_norm(pass, {.sum = before.sum, .branch = attended.y}, feed_forward_norm, norm_eps);
  return {.stream = {.sum = middle.sum, .branch = feed_forward(pass, middle.branch)},
          .memory = attended.memory};
}

InfiniTransformer::InfiniTransformer(const ModelConfig& config, DType compute, Device device)
    : config_(config),
      device_(device),
      parameters_(parameter_specs(config), compute, device),
      embedding_(parameters_["embedding.weight"]),
      final_norm_(parameters_["final_norm.weight"]),
      head_(parameters_[config.tied ? "embedding.weight" : "head.weight"]) {
  const Tensor table = rotary_table(config.segment_tokens, config.head_width(), config.rope_base,
                                    accumulator_of(compute), device);
  for (int layer = 0; layer < config.layers; ++layer) {
    blocks_.emplace_back(config, parameters_, block_prefix(layer), table);
    block_begins_.push_back(parameters_.offset(block_prefix(layer) + "attention.query.weight"));
  }
}

InfiniTransformer::Output InfiniTransformer::operator()(const Pass& pass, const Span& span,
                                                        const Memories& memory,
                                                        bool recompute_blocks) const {
  check(memory.size() == blocks_.size(), "a model of ", blocks_.size(), " layers was given ",
        memory.size(), " memories");
  Stream stream{.sum = embed(pass, span.tokens), .branch = {}};
  Memories after;
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    if (pass.tape && pass.gradients_final)
      pass.tape->on_backward(
          [final = pass.gradients_final, first = block_begins_[layer]] { (*final)(first); });
    if (!recompute_blocks) {
      Block::Output out = blocks_[layer](pass, stream, span, memory[layer]);
      stream = out.stream;
      after.push_back(out.memory);
      continue;
    }
    const auto piece = [&block = blocks_[layer], span](const Pass& inner,
                                                       const std::vector<Tensor>& in) {
      const Block::Output out = block(inner, {.sum = in[0], .branch = in[1]}, span,
                                      {.matrix = in[2], .normalizer = in[3]});
      return std::vector<Tensor>{out.stream.sum, out.stream.branch, out.memory.matrix,
                                 out.memory.normalizer};
    };
    const std::vector<Tensor> out = recompute(
        pass, {stream.sum, stream.branch, memory[layer].matrix, memory[layer].normalizer}, piece);
    stream = {.sum = out[0], .branch = out[1]};
    after.push_back({.matrix = out[2], .normalizer = out[3]});
  }
  return {.hidden = final_norm(pass, stream), .memory = after};
}

Memories InfiniTransformer::remember(const Pass& pass, const Span& span,
                                     const Memories& memory) const {
  check(memory.size() == blocks_.size(), "a model of ", blocks_.size(), " layers was given ",
        memory.size(), " memories");
  Stream stream{.sum = embed(pass, span.tokens), .branch = {}};
  Memories after;
  for (std::size_t layer = 0; layer + 1 < blocks_.size(); ++layer) {
    const Block::Output out = blocks_[layer](pass, stream, span, memory[layer]);
    stream = out.stream;
    after.push_back(out.memory);
  }
  const Block& last = blocks_.back();
  const Stream normed = add_norm(pass, stream, last.attention_norm, last.norm_eps);
  const Tensor qkv = last.attention.project(pass, normed.branch);
  after.push_back(last.attention.remember(qkv, span, memory.back()).after);
  return after;
}

Tensor InfiniTransformer::embed(const Pass& pass, const Tensor& tokens) const {
  return embedding(tokens, pass(embedding_));
}

Tensor InfiniTransformer::final_norm(const Pass& pass, const Stream& stream) const {
  return add_norm(pass, stream, final_norm_, config_.norm_eps).branch;
}

Tensor InfiniTransformer::logits(const Tensor& hidden) const { return linear(hidden, head_.value); }

CrossEntropy InfiniTransformer::loss(const Pass& pass, const Tensor& hidden, const Tensor& targets,
                                     const Tensor& weights, double scale) const {
  return cross_entropy(hidden, pass(head_), targets, weights, scale);
}

void InfiniTransformer::use_memory(bool on) {
  for (Block& block : blocks_) block.attention.use_memory(on);
}

}  // namespace infini
