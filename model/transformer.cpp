#include "model/transformer.h"

#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/product.h"
#include "tensor/recompute.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

std::string block_prefix(int layer) { return text("blocks.", layer, "."); }

void cut(ParameterSpec& spec, int parts, int index) {
  const int axis = spec.division.axis;
  if (axis < 0) return;
  std::vector<std::int64_t> extents(spec.shape.begin(), spec.shape.end());
  check(extents[axis] % parts == 0, spec.name, " ", spec.shape, " does not divide into ", parts,
        " parts");
  extents[axis] /= parts;
  spec.shape = Shape(extents);
  spec.division = {.axis = axis, .count = parts, .index = index};
}

// x and the parts of a memory as one list, and back.
std::vector<Tensor> with_memory(const Tensor& x, const MemoryState& memory) {
  std::vector<Tensor> list{x};
  for (const MemoryPart& part : kMemoryParts) list.push_back(memory.*part.tensor);
  return list;
}
MemoryState memory_of(const std::vector<Tensor>& list) {
  MemoryState memory;
  for (std::size_t i = 0; i < std::size(kMemoryParts); ++i)
    memory.*kMemoryParts[i].tensor = list[i + 1];
  return memory;
}

int count_of(const TensorGroup* group) { return group ? group->count() : 1; }
int index_of(const TensorGroup* group) { return group ? group->index() : 0; }

}  // namespace

std::vector<ParameterSpec> parameter_specs(const ModelConfig& config, int ranks, int index,
                                           const Frozen& frozen) {
  check<ConfigError>(config.vocabulary > 0, "model.vocabulary is not known yet");
  const Shape table{config.vocabulary, config.d_model};
  const double deviation = config.init_deviation > 0 ? config.init_deviation : 0.02;
  const auto rows_of_tokens = [&](const char* name) {
    return ParameterSpec{
        .name = name, .shape = table, .deviation = deviation, .division = {.axis = 0}};
  };
  std::vector<ParameterSpec> specs{rows_of_tokens("embedding.weight")};
  if (config.memory_tokens > 0) MemoryTokens::declare(config, specs);
  for (int layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = block_prefix(layer);
    declare_attention(config, layer, prefix + "attention.", specs);
    FeedForward::declare(config, prefix + "feed_forward.", specs);
    if (!config.normalises_over_time())
      specs.push_back(Norm::spec(config, prefix + "attention_norm.weight"));
    specs.push_back(Norm::spec(config, prefix + "feed_forward_norm.weight"));
  }
  specs.push_back(Norm::spec(config, "final_norm.weight"));
  if (!config.tied) specs.push_back(rows_of_tokens("head.weight"));
  if (ranks > 1)
    for (ParameterSpec& spec : specs) cut(spec, ranks, index);
  if (frozen)
    for (ParameterSpec& spec : specs) spec.frozen = frozen(spec.name);
  return specs;
}

std::int64_t parameter_count(const ModelConfig& config) {
  std::int64_t count = 0;
  for (const ParameterSpec& spec : parameter_specs(config)) count += spec.shape.size();
  return count;
}

bool is_gate(std::string_view parameter) { return parameter.ends_with("attention.gate"); }

Block::Block(const ModelConfig& config, int layer, const Parameters& parameters,
             const Tensor& positions, const TensorGroup* group)
    : two_hops(config.normalises_over_time()),
      feed_forward_norm(config, parameters[block_prefix(layer) + "feed_forward_norm.weight"]),
      attention(make_attention(config, layer, parameters, block_prefix(layer) + "attention.",
                               positions, group)),
      feed_forward(config, parameters, block_prefix(layer) + "feed_forward.", group) {
  if (!config.normalises_over_time())
    attention_norm = {config, parameters[block_prefix(layer) + "attention_norm.weight"]};
}

// How attentions are called, see segment_attention.h.
Block::Output Block::operator()(const Pass& pass, const Tensor& x, const Span& span,
                                const MemoryState& memory) const {
  const auto call = [&](const auto& one) {
    using Attention = std::remove_cvref_t<decltype(one)>;
    if constexpr (std::is_same_v<Attention, MegalodonAttention>) {
      return one(pass, x, span, memory);
    } else {
      const Tensor normed = attention_norm(pass, x);
      if constexpr (std::is_same_v<Attention, FeedbackAttention>)
        return one(pass, normed, x, span, memory, rows(pass));
      else
        return one(pass, normed, x, span, memory);
    }
  };
  const auto [y, after] = std::visit(
      [&](const auto& one) -> Output {
        const auto out = call(one);
        return {.x = out.y, .memory = out.memory};
      },
      attention);
  const Tensor middle = feed_forward_norm(pass, y);
  return {.x = feed_forward(pass, middle, two_hops ? x : y), .memory = after};
}

MemoryState Block::remember(const Pass& pass, const Tensor& x, const Span& span,
                            const MemoryState& memory) const {
  return std::visit(
      [&](const auto& one) {
        using Attention = std::remove_cvref_t<decltype(one)>;
        if constexpr (std::is_same_v<Attention, MegalodonAttention>) {
          return one.remember(pass, x, span, memory);
        } else {
          const Tensor normed = attention_norm(pass, x);
          if constexpr (std::is_same_v<Attention, FeedbackAttention>)
            return one.remember(pass, normed, x, span, memory, rows(pass));
          else
            return one.remember(pass, normed, span, memory);
        }
      },
      attention);
}

BlockRows Block::rows(const Pass& pass) const {
  return {.normed = [this, pass](const Tensor& x) { return attention_norm(pass, x); },
          .feed_forward =
              [this, pass](const Tensor& y) {
                return feed_forward(pass, feed_forward_norm(pass, y), y);
              }};
}

InfiniTransformer::InfiniTransformer(const ModelConfig& config, DType compute, Device device,
                                     const TensorGroup* group, const Keeps& keeps,
                                     const Frozen& frozen)
    : config_(config),
      share_(config.share(count_of(group))),
      group_(group),
      device_(device),
      parameters_(parameter_specs(config, count_of(group), index_of(group), frozen), compute,
                  device, keeps),
      embedding_(parameters_["embedding.weight"]),
      head_(parameters_[config.tied ? "embedding.weight" : "head.weight"]),
      final_norm_(config, parameters_["final_norm.weight"]) {
  if (config.has_memory_tokens()) memory_tokens_.emplace(config, parameters_);
  if (config.feedback_tokens() > 0) prompt_ = parameters_["memory_tokens.weight"];
  const Tensor table = position_table(config, compute, device);
  for (int layer = 0; layer < config.layers; ++layer) {
    blocks_.emplace_back(config, layer, parameters_, table, group);
    const auto begin_of = [&](int block) {
      if (block == config.layers) return parameters_.offset("final_norm.weight");
      std::vector<ParameterSpec> specs;
      declare_attention(config, block, block_prefix(block) + "attention.", specs);
      return parameters_.offset(specs.front().name);
    };
    block_ranges_.push_back({.begin = begin_of(layer), .end = begin_of(layer + 1)});
  }
}

ElementRange InfiniTransformer::block_range(std::size_t layer) const {
  return layer < block_ranges_.size() ? block_ranges_[layer] : ElementRange{};
}

Pass InfiniTransformer::recording(const Pass& pass, std::size_t layer, const Tensor& x,
                                  const MemoryState& memory) const {
  const auto [begin, end] = block_ranges_[layer];
  bool records = x.tape() || parameters_.gradient_offset(begin) < parameters_.gradient_offset(end);
  for (const MemoryPart& part : kMemoryParts) records = records || (memory.*part.tensor).tape();
  Pass result = pass;
  if (!records) result.tape = nullptr;
  return result;
}

// A pass that records a block is about to go back through it, to the block before it.
Pass InfiniTransformer::with_block(const Pass& pass, std::size_t layer) const {
  const std::size_t next = pass.tape ? layer - 1 : layer + 1;
  return borrow(pass, lender_, parameters_, block_range(layer), block_range(next));
}

Pass InfiniTransformer::with_head(const Pass& pass) const {
  const ElementRange range{.begin = head_.offset, .end = head_.offset + head_.value.size()};
  const ElementRange next = pass.tape ? block_ranges_.back() : ElementRange{};
  return borrow(pass, lender_, parameters_, range, next,
                config_.tied ? &table_gradients_ : nullptr);
}

void InfiniTransformer::check_memories(const Memories& memory) const {
  const std::size_t expected = empty_memories(config_).size();
  check(memory.size() == expected, "a model of ", blocks_.size(), " layers was given ",
        memory.size(), " memories, expected ", expected);
}

InfiniTransformer::Output InfiniTransformer::operator()(const Pass& pass, const Span& span,
                                                        const Memories& memory,
                                                        bool recompute_blocks) const {
  check_memories(memory);
  const Tensor x = start(pass, span);
  if (!memory_tokens_) {
    const Streamed out = through_blocks(pass, x, span, memory, recompute_blocks);
    const Tensor last =
        prompt_ ? without_prompt(out.x, config_.feedback_tokens(), span.layout.batch) : out.x;
    return {.hidden = final_norm(pass, last), .memory = out.memory};
  }
  // The blocks' gradients are final when the backward pass has done the first segment.
  const auto blocks = [&](std::int64_t s, const Tensor& rows, const Span& alone) {
    Pass one = pass;
    if (s > 0) one.gradients_final = nullptr;
    const Streamed out =
        through_blocks(one, rows, alone, Memories(blocks_.size()), recompute_blocks);
    return final_norm(one, out.x);
  };
  const MemoryTokens::Output out = (*memory_tokens_)(pass, x, span, memory[0], blocks);
  return {.hidden = out.hidden, .memory = {out.memory}};
}

Tensor InfiniTransformer::start(const Pass& pass, const Span& span) const {
  const Tensor x = embed(pass, span.tokens);
  return prompt_ ? with_prompt(x, pass(*prompt_), span.layout.batch) : x;
}

InfiniTransformer::Streamed InfiniTransformer::through_blocks(const Pass& pass, const Tensor& x,
                                                              const Span& span,
                                                              const Memories& memory,
                                                              bool recompute_blocks) const {
  Streamed stream{.x = x, .memory = {}};
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    if (pass.tape && pass.gradients_final)
      pass.tape->on_backward(
          [final = pass.gradients_final,
           first = parameters_.gradient_offset(block_ranges_[layer].begin)] { (*final)(first); });
    const Pass own = recording(pass, layer, stream.x, memory[layer]);
    if (!recompute_blocks) {
      const Block::Output out =
          blocks_[layer](with_block(own, layer), stream.x, span, memory[layer]);
      stream.x = out.x;
      stream.memory.push_back(out.memory);
      continue;
    }
    const auto piece = [this, layer, span](const Pass& inner, const std::vector<Tensor>& in) {
      const Block::Output out =
          blocks_[layer](with_block(inner, layer), in[0], span, memory_of(in));
      return with_memory(out.x, out.memory);
    };
    const std::vector<Tensor> out = recompute(own, with_memory(stream.x, memory[layer]), piece);
    stream.x = out[0];
    stream.memory.push_back(memory_of(out));
  }
  return stream;
}

Memories InfiniTransformer::remember(const Pass& pass, const Span& span,
                                     const Memories& memory) const {
  if (memory_tokens_) return (*this)(pass, span, memory).memory;
  check_memories(memory);
  Tensor x = start(pass, span);
  Memories after;
  for (std::size_t layer = 0; layer + 1 < blocks_.size(); ++layer) {
    const Block::Output out = blocks_[layer](with_block(pass, layer), x, span, memory[layer]);
    x = out.x;
    after.push_back(out.memory);
  }
  const Pass lent = with_block(pass, blocks_.size() - 1);
  after.push_back(blocks_.back().remember(lent, x, span, memory.back()));
  return after;
}

Tensor InfiniTransformer::embed(const Pass& pass, const Tensor& tokens) const {
  const ElementRange range{.begin = 0, .end = embedding_.value.size()};
  const Pass lent = borrow(pass, lender_, parameters_, range, block_range(0), &table_gradients_);
  const Tensor rows = embedding(tokens, lent(embedding_), group_);
  return config_.embedding_scale == 1 ? rows : affine(rows, config_.embedding_scale, 0);
}

Tensor InfiniTransformer::final_norm(const Pass& pass, const Tensor& x) const {
  return final_norm_(pass, x);
}

Tensor InfiniTransformer::logits(const Tensor& hidden) const {
  const Tensor here = linear(hidden, with_head(Pass{})(head_));
  if (!group_) return here;
  const auto [rows, columns] = here.dims<2>();
  const std::int64_t count = group_->count(), bytes = columns * bytes_of(here.dtype());
  const Tensor parts = group_->gather(here.reshape({here.size()}));
  const Tensor all = Tensor::empty({rows, count * columns}, here.dtype(), here.device());
  for (std::int64_t p = 0; p < count; ++p)
    system_memory(device_).copy({all.raw() + p * bytes, count * bytes},
                                {parts.raw() + p * rows * bytes, bytes}, bytes, rows);
  return all;
}

CrossEntropy InfiniTransformer::loss(const Pass& pass, const Tensor& hidden, const Tensor& targets,
                                     const Tensor& weights, double scale) const {
  return cross_entropy(hidden, with_head(pass)(head_), targets, weights, scale, group_);
}

void InfiniTransformer::use_memory(bool on) {
  if (memory_tokens_) memory_tokens_->use_memory(on);
  for (Block& block : blocks_) std::visit([&](auto& one) { one.use_memory(on); }, block.attention);
}

}  // namespace infini
