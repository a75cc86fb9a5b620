#include "model/batch_decoder.h"

#include <algorithm>

#include "tensor/ops/attention.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

bool has_windows(const Decoder& decoder) { return !decoder.state().windows.empty(); }

bool has_memory(const Decoder& decoder) {
  for (const MemoryPart& part : kMemoryParts)
    if (decoder.memory().front().*part.tensor) return true;
  return false;
}

// The model of rows that can go on together.
const InfiniTransformer& model_of(std::span<const Decoder* const> rows) {
  check(!rows.empty(), "batch decoder: no rows");
  for (const Decoder* row : rows)
    check(BatchDecoder::can_join(*rows.front(), *row), "batch decoder: a row at token ",
          row->position(), " cannot go on beside one at token ", rows.front()->position());
  return rows.front()->model();
}

// Rows `rows` of a tensor [B, ...] as one of their own.
Tensor gathered(const Tensor& tensor, std::span<const std::int64_t> rows) {
  const auto count = static_cast<std::int64_t>(rows.size());
  const Tensor result =
      Tensor::empty(tensor.shape().with_leading(count), tensor.dtype(), tensor.device());
  for (std::int64_t i = 0; i < count; ++i)
    result.slice(i, 1).copy_from(tensor.slice(rows[static_cast<std::size_t>(i)], 1));
  return result;
}

// A window of a segment of T tokens for each of `batch` rows.
Tensor windows_like(const Tensor& window, std::int64_t batch) {
  const auto [tokens, width] = window.dims<2>();
  return Tensor::empty({batch, tokens, width}, window.dtype(), window.device());
}

// Row b of windows [B, T, C] as a window [T, C].
Tensor window_of(const Tensor& windows, std::int64_t row) {
  const auto [batch, tokens, width] = windows.dims<3>();
  return windows.slice(row, 1).reshape({tokens, width});
}

// The memories of the first rows.
Memories first_rows(const Memories& memory, std::int64_t count) {
  return each_part(memory,
                   [&](const MemoryPart&, const Tensor& part) { return part.slice(0, count); });
}

// The memories of all rows. What a row of architecture infini has not written is 0.
Memories stacked(std::span<const Decoder* const> rows) {
  const InfiniTransformer& model = rows.front()->model();
  const auto batch = static_cast<std::int64_t>(rows.size());
  Memories result =
      has_windows(*rows.front())
          ? zero_memories(model.config(), batch, model.parameters().compute(), model.device())
          : each_part(rows.front()->memory(), [&](const MemoryPart&, const Tensor& part) {
              return Tensor::empty(part.shape().with_leading(batch), part.dtype(), part.device());
            });
  for (std::int64_t b = 0; b < batch; ++b) {
    const Memories& memory = rows[static_cast<std::size_t>(b)]->memory();
    for (std::size_t layer = 0; layer < memory.size(); ++layer)
      for (const MemoryPart& part : kMemoryParts)
        if (const Tensor& written = memory[layer].*part.tensor)
          (result[layer].*part.tensor).slice(b, 1).copy_from(written);
  }
  return result;
}

// A memory [B, ...] as what the only segment of a span reads, [B, 1, ...].
MemoryState as_before(const MemoryState& state, const HeadLayout& layout) {
  if (!state.matrix) return {};
  return {.matrix = state.matrix.reshape(layout.matrix_shape()),
          .normalizer = state.normalizer.reshape(layout.normalizer_shape())};
}

}  // namespace

bool BatchDecoder::can_join(const Decoder& a, const Decoder& b) {
  if (&a.model() != &b.model()) return false;
  return has_windows(a) || (a.filled() == b.filled() && has_memory(a) == has_memory(b));
}

BatchDecoder::BatchDecoder(std::span<const Decoder* const> rows)
    : model_(model_of(rows)), memory_(stacked(rows)) {
  for (const Decoder* row : rows) {
    filled_.push_back(row->filled());
    open_.push_back(row->state().open);
  }
  const std::int64_t batch = this->rows();
  for (std::size_t layer = 0; layer < rows.front()->state().windows.size(); ++layer) {
    const DecoderState::Window& first = rows.front()->state().windows[layer];
    windows_.push_back(
        {.qkv = windows_like(first.qkv, batch), .rotated = windows_like(first.rotated, batch)});
    for (std::int64_t b = 0; b < batch; ++b)
      copy_window(b, rows[static_cast<std::size_t>(b)]->state().windows[layer], layer);
  }
}

// The tokens of its open segment: what stands behind them is never read.
void BatchDecoder::copy_window(std::int64_t row, const DecoderState::Window& from,
                               std::size_t layer) {
  const std::int64_t filled = filled_[static_cast<std::size_t>(row)];
  const auto copy = [&](const Tensor& to, const Tensor& window) {
    window_of(to, row).slice(0, filled).copy_from(window.slice(0, filled));
  };
  if (filled == 0) return;
  copy(windows_[layer].qkv, from.qkv);
  copy(windows_[layer].rotated, from.rotated);
}

HeadLayout BatchDecoder::layout(std::int64_t batch, std::int64_t tokens) const {
  return layout_of(model_.config(), batch, 1, tokens);
}

std::vector<BatchDecoder::Run> BatchDecoder::runs() const {
  std::vector<Run> runs;
  for (std::int64_t b = 0; b < rows(); ++b) {
    const std::int64_t filled = filled_[static_cast<std::size_t>(b)];
    if (runs.empty() || runs.back().filled != filled)
      runs.push_back({.first = b, .count = 0, .filled = filled});
    ++runs.back().count;
  }
  return runs;
}

Tensor BatchDecoder::next_logits(std::span<const std::int32_t> tokens) {
  check(static_cast<std::int64_t>(tokens.size()) == rows(), "batch decoder: ", tokens.size(),
        " tokens for ", rows(), " rows");
  return model_.logits(windows_.empty() ? read_open_segments(tokens) : read_windows(tokens));
}

void BatchDecoder::keep(std::span<const std::int64_t> rows) {
  const auto count = static_cast<std::int64_t>(rows.size());
  check(count > 0, "batch decoder: no rows to keep");
  for (std::int64_t to = 0; to < count; ++to) {
    const std::int64_t from = rows[static_cast<std::size_t>(to)];
    if (from == to) continue;
    check(from >= count && from < this->rows(), "batch decoder: row ", from,
          " cannot take the place of row ", to, " of ", count);
    open_[static_cast<std::size_t>(to)] = open_[static_cast<std::size_t>(from)];
    filled_[static_cast<std::size_t>(to)] = filled_[static_cast<std::size_t>(from)];
    for (const MemoryState& state : memory_)
      for (const MemoryPart& part : kMemoryParts)
        if (const Tensor& tensor = state.*part.tensor)
          tensor.slice(to, 1).copy_from(tensor.slice(from, 1));
    for (std::size_t layer = 0; layer < windows_.size(); ++layer)
      copy_window(to,
                  {.qkv = window_of(windows_[layer].qkv, from),
                   .rotated = window_of(windows_[layer].rotated, from)},
                  layer);
  }
  open_.resize(rows.size());
  filled_.resize(rows.size());
}

Tensor BatchDecoder::read_windows(std::span<const std::int32_t> tokens) {
  const HeadLayout fresh = layout(rows(), 1);
  const Memories memory = first_rows(memory_, rows());
  Tensor x = model_.embed(Pass{}, Tensor::of(tokens, {rows()}).to(model_.device()));
  for (std::size_t layer = 0; layer < windows_.size(); ++layer) {
    const Block& block = model_.blocks()[layer];
    const InfiniAttention& attention = block.infini_attention();
    const Pass pass = model_.with_block(Pass{}, layer);
    const Tensor qkv = attention.project(pass, block.attention_norm(pass, x));
    const Tensor mixed = attention.mix(pass, qkv, as_before(memory[layer], fresh),
                                       attend(layer, attention, qkv), fresh);
    const Tensor attended = attention.output(pass, mixed, x);
    x = block.feed_forward(pass, block.feed_forward_norm(pass, attended), attended);
  }
  for (std::int64_t& filled : filled_) ++filled;
  close_segments();
  return model_.final_norm(Pass{}, x);
}

Tensor BatchDecoder::attend(std::size_t layer, const InfiniAttention& attention,
                            const Tensor& qkv) {
  const DecoderState::Window& window = windows_[layer];
  const auto place = [&](const Tensor& windows, const Run& run, const Tensor& fresh) {
    const auto [batch, tokens, width] = windows.dims<3>();
    const std::int64_t bytes = width * bytes_of(windows.dtype());
    system_memory(windows.device())
        .copy({windows.raw() + (run.first * tokens + run.filled) * bytes, tokens * bytes},
              {fresh.raw(), bytes}, bytes, run.count);
  };
  const Tensor local =
      Tensor::empty({rows(), layout(1, 1).query_width()}, qkv.dtype(), qkv.device());
  for (const Run& run : runs()) {
    const Tensor fresh = qkv.slice(run.first, run.count);
    place(window.qkv, run, fresh);
    place(window.rotated, run, attention.rotated(fresh, layout(run.count, 1), run.filled));
    const std::int64_t seen = run.filled + 1;
    for (std::int64_t b = run.first; b < run.first + run.count; ++b)
      local.slice(b, 1).copy_from(window_attention(window_of(window.rotated, b).slice(0, seen),
                                                   window_of(window.qkv, b).slice(0, seen),
                                                   layout(1, seen), attention.scale(), run.filled));
  }
  return local;
}

void BatchDecoder::close_segments() {
  const std::int64_t segment = model_.config().segment_tokens;
  for (const Run& run : runs()) {
    if (run.filled < segment) continue;
    const Span span{.layout = layout(run.count, segment), .tokens = {}, .keep = {}, .borders = {}};
    for (std::size_t layer = 0; layer < windows_.size(); ++layer) {
      const MemoryState& memory = memory_[layer];
      if (!memory.matrix) continue;
      const MemoryState before{.matrix = memory.matrix.slice(run.first, run.count),
                               .normalizer = memory.normalizer.slice(run.first, run.count)};
      const Tensor closed = windows_[layer].qkv.slice(run.first, run.count);
      const MemoryState after =
          model_.blocks()[layer]
              .infini_attention()
              .remember(closed.reshape({run.count * segment, closed.shape()[2]}), span, before)
              .after;
      before.matrix.copy_from(after.matrix);
      before.normalizer.copy_from(after.normalizer);
    }
    std::fill_n(filled_.begin() + run.first, run.count, 0);
  }
}

Tensor BatchDecoder::read_open_segments(std::span<const std::int32_t> tokens) {
  std::vector<std::int32_t> ids;
  for (std::size_t b = 0; b < open_.size(); ++b) {
    open_[b].push_back(tokens[b]);
    ids.insert(ids.end(), open_[b].begin(), open_[b].end());
  }
  const auto count = static_cast<std::int64_t>(open_.front().size());
  const Span span{.layout = layout(rows(), count),
                  .tokens = Tensor::of(ids, {rows() * count}).to(model_.device()),
                  .keep = {},
                  .borders = {}};
  const InfiniTransformer::Output out = model_(Pass{}, span, first_rows(memory_, rows()));
  std::vector<std::int64_t> newest;
  for (std::int64_t b = 0; b < rows(); ++b) newest.push_back((b + 1) * count - 1);
  std::ranges::fill(filled_, count);
  if (count == model_.config().segment_tokens) {
    memory_ = out.memory;
    for (std::vector<std::int32_t>& open : open_) open.clear();
    std::ranges::fill(filled_, 0);
  }
  return gathered(out.hidden, newest);
}

}  // namespace infini
