#include "model/decoder.h"

#include <algorithm>

#include "tensor/ops/attention.h"
#include "tensor/ops/rotary.h"

namespace infini {
namespace {

// A state [B, ...] as what the only segment of a span reads, [B, 1, ...]; zeros where nothing was
// written.
MemoryState as_before(const MemoryState& state, const HeadLayout& layout, DType dtype,
                      Device device) {
  if (!state.matrix)
    return {.matrix = Tensor::zeros(layout.matrix_shape(), dtype, device),
            .normalizer = Tensor::zeros(layout.normalizer_shape(), dtype, device)};
  return {.matrix = state.matrix.reshape(layout.matrix_shape()),
          .normalizer = state.normalizer.reshape(layout.normalizer_shape())};
}

Memories memories_on(Device device, const Memories& memories) {
  return each_part(memories, [&](const MemoryPart&, const Tensor& part) {
    return part.device() == device ? part : part.to(device);
  });
}

// Throws where a state does not look like one of a decoder of the model; `fresh` is one that has
// read nothing.
void check_state(const InfiniTransformer& model, const DecoderState& state,
                 const DecoderState& fresh) {
  const ModelConfig& config = model.config();
  const auto check_like = [](const char* part, const Tensor& given, const Tensor& expected) {
    check(given.shape() == expected.shape() && given.dtype() == expected.dtype(),
          "decoder: a state has ", part, " ", given.dtype(), " ", given.shape(),
          ", the model expects ", expected.dtype(), " ", expected.shape());
  };
  const Memories written = zero_memories(config, 1, model.parameters().compute(), Device::kCpu);
  for (std::size_t layer = 0; layer < written.size(); ++layer)
    for (const MemoryPart& part : kMemoryParts)
      if (const Tensor& given = state.memory[layer].*part.tensor) {
        check(static_cast<bool>(written[layer].*part.tensor), "decoder: a state has ", part.name,
              " ", given.dtype(), " ", given.shape(), ", the model expects no such memory");
        check_like(part.name, given, written[layer].*part.tensor);
      }
  check(state.windows.size() == fresh.windows.size(), "decoder: a state has ", state.windows.size(),
        " windows, the model has ", fresh.windows.size());
  for (std::size_t layer = 0; layer < state.windows.size(); ++layer) {
    check_like("projections", state.windows[layer].qkv, fresh.windows[layer].qkv);
    check_like("rotated projections", state.windows[layer].rotated, fresh.windows[layer].rotated);
  }
  const auto open = static_cast<std::int64_t>(state.open.size());
  check(state.filled >= 0 && state.filled < config.segment_tokens &&
            state.position >= state.filled && open == (fresh.windows.empty() ? state.filled : 0),
        "decoder: a state at token ", state.position, " has ", state.filled, " tokens and ", open,
        " ids in a segment of ", config.segment_tokens);
}

DecodeActivation decode_activation(Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return DecodeActivation::kRelu;
    case Activation::kSwiglu:
      return DecodeActivation::kSwiglu;
    default:
      return DecodeActivation::kGelu;
  }
}

// What the kernel for single tokens knows: heads as the projection leaves them, and no Gemma.
bool is_of_the_kernel(const ModelConfig& config) {
  return !config.projection_biases && !config.head_norms && !config.offset_norms &&
         config.embedding_scale == 1 && config.activation != Activation::kGeglu;
}

}  // namespace

Decoder::Decoder(const InfiniTransformer& model, SingleTokens how)
    : Decoder(model, empty_memories(model.config()), how) {}

Decoder::Decoder(const InfiniTransformer& model, Memories memory, SingleTokens how)
    : model_(model), state_{.memory = std::move(memory)} {
  check(!model.is_shared(), "decoder: ranks share this model; one that has all of it decodes");
  const std::size_t expected = empty_memories(model.config()).size();
  check(state_.memory.size() == expected, "decoder: a model of ", model.blocks().size(),
        " layers was given ", state_.memory.size(), " memories, expected ", expected);
  if (model.config().architecture != Architecture::kInfini) return;
  const HeadLayout window = layout(1, model.config().segment_tokens);
  const DType compute = model.parameters().compute();
  for (int layer = 0; layer < model.config().layers; ++layer)
    state_.windows.push_back(
        {.qkv = Tensor::zeros({window.rows(), window.qkv_width()}, compute, model.device()),
         .rotated =
             Tensor::zeros({window.rows(), window.rotated_width()}, compute, model.device())});
  if (model.device() == Device::kCpu || how == SingleTokens::kOpByOp || model.borrows()) return;
  if (!is_of_the_kernel(model.config())) return;
  rotary_table_ = position_table(model.config(), compute, model.device());
  plan_ = decode_plan(decode_model());
}

Decoder::Decoder(const InfiniTransformer& model, const DecoderState& state, SingleTokens how)
    : Decoder(model, memories_on(model.device(), state.memory), how) {
  check_state(model, state, state_);
  for (std::size_t layer = 0; layer < state.windows.size(); ++layer) {
    state_.windows[layer].qkv.copy_from(state.windows[layer].qkv);
    state_.windows[layer].rotated.copy_from(state.windows[layer].rotated);
  }
  state_.open = state.open;
  state_.filled = state.filled;
  state_.position = state.position;
}

// Memories are replaced, never written to, so that copies may share them; windows are written to.
Decoder::Decoder(const Decoder& other)
    : model_(other.model_), state_(other.state_), rotary_table_(other.rotary_table_) {
  for (DecoderState::Window& window : state_.windows)
    window = {.qkv = window.qkv.clone(), .rotated = window.rotated.clone()};
  if (other.plan_) plan_ = decode_plan(decode_model());
}

HeadLayout Decoder::layout(std::int64_t segments, std::int64_t tokens) const {
  return layout_of(model_.config(), 1, segments, tokens);
}

Tensor Decoder::read(std::span<const std::int32_t> tokens) { return take(tokens, false).hidden; }

std::vector<float> Decoder::next_logits(std::span<const std::int32_t> tokens) {
  const Output last = take(tokens, true);
  if (!last.logits) return model_.logits(last.hidden).to_vector<float>();
  std::vector<float> logits = last.logits.to_vector<float>();
  check_status(*plan_);
  return logits;
}

std::vector<std::int32_t> Decoder::generate_greedy(std::span<const std::int32_t> tokens,
                                                   std::int64_t count) {
  check(!tokens.empty(), "decoder: expected at least one token");
  std::vector<std::int32_t> chosen;
  if (!plan_) {
    for (std::int64_t i = 0; i < count; ++i) {
      const std::vector<float> logits = next_logits(i == 0 ? tokens : std::span(&chosen.back(), 1));
      chosen.push_back(
          static_cast<std::int32_t>(std::ranges::max_element(logits) - logits.begin()));
    }
    return chosen;
  }
  // The last token and all that follow are taken without a word to the host between them.
  if (tokens.size() > 1) read(tokens.first(tokens.size() - 1));
  const Tensor choices = Tensor::zeros({count}, DType::kInt64, model_.device());
  for (std::int64_t i = 0; i < count; ++i)
    step(tokens.back(), true, i > 0 ? choices.slice(i - 1, 1) : Tensor{}, choices.slice(i, 1));
  for (const std::int64_t choice : choices.to_vector<std::int64_t>())
    chosen.push_back(token_of(choice));
  check_status(*plan_);
  return chosen;
}

Decoder::Output Decoder::take(std::span<const std::int32_t> tokens, bool with_logits) {
  check(!tokens.empty(), "decoder: expected at least one token");
  const auto segment = static_cast<std::size_t>(model_.config().segment_tokens);
  Output last;
  while (!tokens.empty()) {
    std::size_t taken;
    if (state_.filled == 0 && tokens.size() >= segment) {
      taken = std::min<std::size_t>(tokens.size() / segment, kSegmentsAtOnce) * segment;
      last = {.hidden = read_segments(tokens.first(taken)), .logits = {}};
    } else {
      taken = std::min(tokens.size(), segment - static_cast<std::size_t>(state_.filled));
      last = taken == 1 && plan_ ? step(tokens.front(), with_logits)
                                 : Output{.hidden = read_window(tokens.first(taken)), .logits = {}};
    }
    tokens = tokens.subspan(taken);
  }
  return last;
}

Tensor Decoder::read_segments(std::span<const std::int32_t> tokens) {
  const std::int64_t segment = model_.config().segment_tokens,
                     count = static_cast<std::int64_t>(tokens.size());
  const Span span{.layout = layout(count / segment, segment),
                  .tokens = Tensor::of(tokens, {count}).to(model_.device()),
                  .keep = {},
                  .borders = {}};
  const InfiniTransformer::Output out = model_(Pass{}, span, state_.memory);
  state_.memory = out.memory;
  plan_is_old_ = true;
  state_.position += count;
  return out.hidden.slice(count - 1, 1);
}

Tensor Decoder::read_open_segment(std::span<const std::int32_t> tokens) {
  state_.open.insert(state_.open.end(), tokens.begin(), tokens.end());
  const auto count = static_cast<std::int64_t>(state_.open.size());
  const Span span{.layout = layout(1, count),
                  .tokens = Tensor::of(state_.open, {count}).to(model_.device()),
                  .keep = {},
                  .borders = {}};
  const InfiniTransformer::Output out = model_(Pass{}, span, state_.memory);
  state_.filled = count;
  state_.position += static_cast<std::int64_t>(tokens.size());
  if (state_.filled == model_.config().segment_tokens) {
    state_.memory = out.memory;
    state_.open.clear();
    state_.filled = 0;
  }
  return out.hidden.slice(count - 1, 1);
}

Tensor Decoder::read_window(std::span<const std::int32_t> tokens) {
  if (state_.windows.empty()) return read_open_segment(tokens);
  const auto count = static_cast<std::int64_t>(tokens.size());
  const std::int64_t seen = state_.filled + count;
  const DType state = accumulator_of(model_.parameters().compute());
  const HeadLayout fresh = layout(1, count), window = layout(1, seen);

  Tensor x = model_.embed(Pass{}, Tensor::of(tokens, {count}).to(model_.device()));
  for (std::size_t layer = 0; layer < state_.windows.size(); ++layer) {
    const Block& block = model_.blocks()[layer];
    const InfiniAttention& attention = block.infini_attention();
    const Pass pass = model_.with_block(Pass{}, layer);
    const Tensor qkv = attention.project(pass, block.attention_norm(pass, x));
    state_.windows[layer].qkv.slice(state_.filled, count).copy_from(qkv);
    state_.windows[layer]
        .rotated.slice(state_.filled, count)
        .copy_from(attention.rotated(qkv, fresh, state_.filled));
    const Tensor local = window_attention(state_.windows[layer].rotated.slice(0, seen),
                                          state_.windows[layer].qkv.slice(0, seen), window,
                                          attention.scale(), state_.filled);
    const MemoryState memory = as_before(state_.memory[layer], fresh, state, model_.device());
    const Tensor attended =
        attention.output(pass, attention.mix(pass, qkv, memory, local, fresh), x);
    x = block.feed_forward(pass, block.feed_forward_norm(pass, attended), attended);
  }
  state_.filled = seen;
  state_.position += count;
  if (state_.filled == model_.config().segment_tokens) close_segment();
  return model_.final_norm(Pass{}, x).slice(count - 1, 1);
}

Decoder::Output Decoder::step(std::int32_t token, bool with_logits, const Tensor& from,
                              const Tensor& choice) {
  if (plan_is_old_) renew(*plan_, decode_model());
  plan_is_old_ = false;
  const ModelConfig& config = model_.config();
  const auto row = [&](std::int64_t width) {
    return Tensor::empty({1, width}, model_.parameters().compute(), model_.device());
  };
  const Output out{.hidden = row(config.d_model),
                   .logits = with_logits ? row(config.vocabulary) : Tensor{}};
  decode(*plan_, {.token = token,
                  .from = from,
                  .position = state_.filled,
                  .hidden = out.hidden,
                  .logits = out.logits,
                  .choice = choice});
  ++state_.filled;
  ++state_.position;
  if (state_.filled == config.segment_tokens) close_segment();
  return out;
}

void Decoder::close_segment() {
  const Span span{.layout = layout(1, state_.filled), .tokens = {}, .keep = {}, .borders = {}};
  for (std::size_t layer = 0; layer < state_.windows.size(); ++layer)
    state_.memory[layer] = model_.blocks()[layer]
                               .infini_attention()
                               .remember(state_.windows[layer].qkv, span, state_.memory[layer])
                               .after;
  plan_is_old_ = true;
  state_.filled = 0;
}

DecodeModel Decoder::decode_model() const {
  const ModelConfig& config = model_.config();
  const Parameters& parameters = model_.parameters();
  DecodeModel result{.heads = layout(1, 1),
                     .activation = decode_activation(config.activation),
                     .scale = model_.blocks().front().infini_attention().scale(),
                     .norm_eps = config.norm_eps,
                     .recall = {.eps = config.memory_eps,
                                .bypass_empty = config.first_segment == FirstSegment::kBypass},
                     .embedding = parameters["embedding.weight"].value,
                     .head = parameters[config.tied ? "embedding.weight" : "head.weight"].value,
                     .final_norm = parameters["final_norm.weight"].value,
                     .rotary_table = rotary_table_,
                     .layers = {}};
  const bool recalls = reads_memory();
  for (std::size_t i = 0; i < state_.windows.size(); ++i) {
    const Block& block = model_.blocks()[i];
    const std::string prefix = text("blocks.", i, "."), attention = prefix + "attention.",
                      inner = prefix + "feed_forward.";
    DecodeLayer layer{
        .attention_norm = block.attention_norm.weight().value,
        .feed_forward_norm = block.feed_forward_norm.weight().value,
        .qkv = parameters
                   .joined({attention + "query.weight", attention + "key.weight",
                            attention + "value.weight"})
                   .value,
        .output = parameters[attention + "output.weight"].value,
        .up = config.has_gated_activation()
                  ? parameters.joined({inner + "gate.weight", inner + "up.weight"}).value
                  : parameters[inner + "up.weight"].value,
        .down = parameters[inner + "down.weight"].value,
        .gate = {},
        .matrix = {},
        .normalizer = {},
        .window_qkv = state_.windows[i].qkv,
        .window_rotated = state_.windows[i].rotated};
    if (recalls) layer.gate = block.infini_attention().gate().value;
    if (recalls && state_.memory[i].matrix) {
      const std::int64_t heads = config.key_value_heads(), width = config.head_width();
      layer.matrix = state_.memory[i].matrix.reshape({heads, width, width});
      layer.normalizer = state_.memory[i].normalizer.reshape({heads, width});
    }
    result.layers.push_back(layer);
  }
  return result;
}

// Mixing gives local attention itself back where no memory is read.
bool Decoder::reads_memory() const {
  if (model_.config().memory == MemoryRule::kNone) return false;
  const HeadLayout one = layout(1, 1);
  const DType compute = model_.parameters().compute();
  const auto zeros = [&](std::int64_t width) {
    return Tensor::zeros({1, width}, compute, model_.device());
  };
  const Tensor local = zeros(one.query_width());
  const MemoryState nothing = as_before({}, one, accumulator_of(compute), model_.device());
  return model_.blocks()
             .front()
             .infini_attention()
             .mix(Pass{}, zeros(one.qkv_width()), nothing, local, one)
             .raw() != local.raw();
}

}  // namespace infini
