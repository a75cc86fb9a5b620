#include "model/decoder.h"

#include "tensor/ops/attention.h"

namespace infini {
namespace {

constexpr std::int64_t kSegmentsAtOnce = 4;

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

}  // namespace

Decoder::Decoder(const InfiniTransformer& model) : Decoder(model, empty_memories(model.config())) {}

Decoder::Decoder(const InfiniTransformer& model, Memories memory)
    : model_(model), memory_(std::move(memory)) {
  check(memory_.size() == model.blocks().size(), "decoder: a model of ", model.blocks().size(),
        " layers was given ", memory_.size(), " memories");
  const HeadLayout window = layout(1, model.config().segment_tokens);
  const DType compute = model.parameters().compute();
  for (int layer = 0; layer < model.config().layers; ++layer)
    windows_.push_back(
        {.qkv = Tensor::zeros({window.rows(), window.qkv_width()}, compute, model.device()),
         .rotated =
             Tensor::zeros({window.rows(), window.rotated_width()}, compute, model.device())});
}

// Memories are replaced, never written to, so that copies may share them; windows are written to.
Decoder::Decoder(const Decoder& other)
    : model_(other.model_),
      memory_(other.memory_),
      windows_(other.windows_),
      filled_(other.filled_),
      position_(other.position_) {
  for (Window& window : windows_)
    window = {.qkv = window.qkv.clone(), .rotated = window.rotated.clone()};
}

HeadLayout Decoder::layout(std::int64_t segments, std::int64_t tokens) const {
  const ModelConfig& config = model_.config();
  return {.batch = 1,
          .segments = segments,
          .tokens = tokens,
          .heads = config.heads,
          .kv_heads = config.key_value_heads(),
          .head_width = config.head_width()};
}

Tensor Decoder::read(std::span<const std::int32_t> tokens) {
  check(!tokens.empty(), "decoder: expected at least one token");
  const auto segment = static_cast<std::size_t>(model_.config().segment_tokens);
  Tensor hidden;
  while (!tokens.empty()) {
    std::size_t taken;
    if (filled_ == 0 && tokens.size() >= segment) {
      taken = std::min<std::size_t>(tokens.size() / segment, kSegmentsAtOnce) * segment;
      hidden = read_segments(tokens.first(taken));
    } else {
      taken = std::min(tokens.size(), segment - static_cast<std::size_t>(filled_));
      hidden = read_window(tokens.first(taken));
    }
    position_ += static_cast<std::int64_t>(taken);
    tokens = tokens.subspan(taken);
  }
  return hidden;
}

std::vector<float> Decoder::next_logits(std::span<const std::int32_t> tokens) {
  return model_.logits(read(tokens)).to_vector<float>();
}

Tensor Decoder::read_segments(std::span<const std::int32_t> tokens) {
  const std::int64_t segment = model_.config().segment_tokens,
                     count = static_cast<std::int64_t>(tokens.size());
  const Span span{.layout = layout(count / segment, segment),
                  .tokens = Tensor::of(tokens, {count}).to(model_.device()),
                  .keep = {},
                  .borders = {}};
  const InfiniTransformer::Output out = model_(Pass{}, span, memory_);
  memory_ = out.memory;
  return out.hidden.slice(count - 1, 1);
}

Tensor Decoder::read_window(std::span<const std::int32_t> tokens) {
  const auto count = static_cast<std::int64_t>(tokens.size());
  const std::int64_t seen = filled_ + count;
  const Pass pass;
  const DType state = accumulator_of(model_.parameters().compute());
  const HeadLayout fresh = layout(1, count), window = layout(1, seen);

  Stream stream{.sum = model_.embed(pass, Tensor::of(tokens, {count}).to(model_.device())),
                .branch = {}};
  for (std::size_t layer = 0; layer < windows_.size(); ++layer) {
    const Block& block = model_.blocks()[layer];
    const Stream before = add_norm(pass, stream, block.attention_norm, block.norm_eps);
    const Tensor qkv = block.attention.project(pass, before.branch);
    windows_[layer].qkv.slice(filled_, count).copy_from(qkv);
    windows_[layer]
        .rotated.slice(filled_, count)
        .copy_from(block.attention.rotated(qkv, fresh, filled_));
    const Tensor local =
        window_attention(windows_[layer].rotated.slice(0, seen), windows_[layer].qkv.slice(0, seen),
                         window, block.attention.scale(), filled_);
    const MemoryState memory = as_before(memory_[layer], fresh, state, model_.device());
    const Tensor attended =
        block.attention.output(pass, block.attention.mix(pass, qkv, memory, local, fresh));
    const Stream middle = add_norm(pass, {.sum = before.sum, .branch = attended},
                                   block.feed_forward_norm, block.norm_eps);
    stream = {.sum = middle.sum, .branch = block.feed_forward(pass, middle.branch)};
  }
  filled_ = seen;
  if (filled_ == model_.config().segment_tokens) close_segment();
  return model_.final_norm(pass, stream).slice(count - 1, 1);
}

void Decoder::close_segment() {
  const Span span{.layout = layout(1, filled_), .tokens = {}, .keep = {}, .borders = {}};
  for (std::size_t layer = 0; layer < windows_.size(); ++layer)
    memory_[layer] =
        model_.blocks()[layer].attention.remember(windows_[layer].qkv, span, memory_[layer]).after;
  filled_ = 0;
}

}  // namespace infini
