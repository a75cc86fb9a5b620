#include "trainer/plan_ops.h"

#include <algorithm>

#include "tensor/ops/cross_entropy.h"

namespace infini {
namespace {

// Partial sums of a norm's weight gradient: one for each block of threads that runs at a time on a
// large GPU, or for each 64 rows on a CPU (tensor/ops/norm.cu, norm.cpp).
constexpr std::int64_t kGpuNormPieces = 528, kCpuNormRows = 64;
// The same of biases and of the norms of heads (tensor/ops/bias.cu, head_norm.cu).
constexpr std::int64_t kGpuBiasPieces = 256, kGpuBiasRows = 8, kGpuHeadNormPieces = 1024;
// Consecutive tokens, sorted by id, that one block adds up (tensor/ops/embedding.cu).
constexpr std::int64_t kEmbeddingWindow = 32;
constexpr std::int64_t kAttentionTile = 64, kMostScoreBytes = std::int64_t{5} << 29;

// Closures below keep what their namesakes capture: by `kept = ...`, or by naming it in (void).

double as_double(std::int64_t value) { return static_cast<double>(value); }

// Of two products over half of the square of each segment.
double attention_flops(const HeadLayout& layout) {
  return 2 * as_double(layout.rows() * layout.query_width()) * as_double(layout.tokens);
}

}  // namespace

void PlannedOps::sum_over_tensors(std::int64_t elements) const {
  if (!divided()) return;
  ++trace_.work.tensor_sums;
  trace_.work.tensor_sum_bytes += as_double(elements * options_.element_bytes);
}

void PlannedOps::finish_sum(std::int64_t elements, const Sized& residual) const {
  sum_over_tensors(elements);
  if (divided() && residual) pass(3 * as_double(elements));
}

void PlannedOps::lose_divided(std::int64_t rows, std::int64_t elements) const {
  const auto sums = workspace(3 * rows * options_.full_bytes);
  pass(as_double(elements));
  ++trace_.work.tensor_gathers;
  trace_.work.tensor_gather_bytes += as_double(3 * rows * options_.full_bytes);
  const auto all = workspace(options_.tensors * 3 * rows * options_.full_bytes);
  pass(2 * as_double(elements));
}

Sized PlannedOps::embedding(SizeTape* tape, std::int64_t rows, std::int64_t width,
                            const Sized& tokens, const Sized& table) const {
  Sized y = make(rows * width);
  pass(2 * as_double(rows * width));
  sum_over_tensors(rows * width);
  if (tape)
    tape->push({&y}, {table}, [=, this](const auto&, const SizeTape::Gradients&) {
      (void)tokens;
      if (on_gpu()) {
        const std::int64_t windows = (rows + kEmbeddingWindow - 1) / kEmbeddingWindow;
        // Ids and places before and after sorting, the sort's own copies, partial sums.
        const auto sorted = workspace(7 * 4 * rows);
        const auto partial = workspace(windows * 2 * width * options_.full_bytes);
      }
      pass(4 * as_double(rows * width));
    });
  return y;
}

Sized PlannedOps::linear(SizeTape* tape, const Sized& x, const Sized& weight, std::int64_t rows,
                         std::int64_t width, std::int64_t outputs, Split split,
                         const Sized& residual) const {
  Sized y = make(rows * outputs);
  product(rows, outputs, width);
  if (split == Split::kRows) finish_sum(rows * outputs, residual);
  if (tape)
    tape->push({&y}, {x, weight, residual},
               [=, this, kept = weight.tape ? x.block : nullptr](const auto& doutputs,
                                                                 const auto& gradients) {
                 if (const auto dx = gradients.of(0)) {
                   product(rows, width, outputs);
                   if (split == Split::kColumns) sum_over_tensors(rows * width);
                 }
                 if (gradients.asks(1)) product(outputs, width, rows, true);
                 gradients.hand_on(2, doutputs[0]);
               });
  return y;
}

Trace::Block PlannedOps::norm_workspace(std::int64_t rows, std::int64_t width) const {
  const std::int64_t pieces =
      on_gpu() ? std::min(kGpuNormPieces, rows) : (rows + kCpuNormRows - 1) / kCpuNormRows + 1;
  return workspace(pieces * width * options_.full_bytes);
}

Sized PlannedOps::rms_norm(SizeTape* tape, const Sized& x, const Sized& weight, std::int64_t rows,
                           std::int64_t width) const {
  Sized y = make(rows * width);
  const Sized inverse = make_full(rows);
  pass(2 * as_double(rows * width));
  if (tape)
    tape->push({&y}, {x, weight}, [=, this, kept = x.block](const auto&, const auto& gradients) {
      const auto dx = gradients.renew(0);
      const auto partial = norm_workspace(rows, width);
      pass((dx.stood ? 4 : 3) * as_double(rows * width));
      ++trace_.work.kernels;
      (void)inverse;
    });
  return y;
}

Trace::Block PlannedOps::column_workspace(std::int64_t gpu_pieces, std::int64_t rows,
                                          std::int64_t width) const {
  const std::int64_t cpu_pieces = (rows + kCpuNormRows - 1) / kCpuNormRows + 1;
  return workspace((on_gpu() ? gpu_pieces : cpu_pieces) * width * options_.full_bytes);
}

Sized PlannedOps::add_bias(SizeTape* tape, const Sized& x, const Sized& bias, std::int64_t rows,
                           std::int64_t width) const {
  Sized y = make(rows * width);
  pass(2 * as_double(rows * width));
  if (tape)
    tape->push({&y}, {x, bias}, [=, this](const auto& doutputs, const auto& gradients) {
      if (gradients.asks(1)) {
        const std::int64_t pieces = (rows + kGpuBiasRows - 1) / kGpuBiasRows;
        const auto partial = column_workspace(std::min(kGpuBiasPieces, pieces), rows, width);
        pass(as_double(rows * width));
        ++trace_.work.kernels;
      }
      gradients.hand_on(0, doutputs[0]);
    });
  return y;
}

Sized PlannedOps::head_norm(SizeTape* tape, const Sized& qkv, const Sized& query_weight,
                            const Sized& key_weight, const HeadLayout& layout) const {
  const std::int64_t rows = layout.rows(), elements = rows * layout.qkv_width();
  Sized y = make(elements);
  const Sized inverse = make_full(rows * (layout.heads + layout.kv_heads));
  pass(2 * as_double(elements));
  if (tape)
    tape->push({&y}, {qkv, query_weight, key_weight},
               [=, this, kept = qkv.block](const auto&, const auto& gradients) {
                 const auto dqkv = gradients.of(0);
                 const auto partial =
                     column_workspace(kGpuHeadNormPieces, rows, 2 * layout.head_width);
                 pass(3 * as_double(elements));
                 trace_.work.kernels += 2;
                 (void)inverse;
               });
  return y;
}

Sized PlannedOps::affine(SizeTape* tape, const Sized& x, std::int64_t elements, bool full) const {
  return moved(tape, full ? make_full(elements) : make(elements), {x}, elements);
}

Sized PlannedOps::gelu_feed_forward(SizeTape* tape, const FeedForwardInputs& in, std::int64_t rows,
                                    std::int64_t width, std::int64_t inner) const {
  const auto& [x, up, down, residual] = in;
  const Sized hidden = make(rows * inner);
  const Sized slopes = x.tape || up.tape || down.tape ? make(rows * inner) : Sized{};
  Sized y = make(rows * width);
  product(rows, inner, width);
  product(rows, width, inner);
  finish_sum(rows * width, residual);
  if (tape)
    tape->push({&y}, {x, up, down, residual},
               [=, this, up_input = up.tape ? x.block : nullptr,
                down_input = down.tape ? hidden.block : nullptr](const auto& doutputs,
                                                                 const auto& gradients) {
                 if (gradients.asks(2)) product(width, inner, rows, true);
                 const auto dx = gradients.of(0);
                 const bool inside = dx || gradients.asks(1);
                 const Sized dinner = inside ? make(rows * inner) : Sized{};
                 if (inside) product(rows, inner, width);
                 if (dx) {
                   product(rows, width, inner);
                   sum_over_tensors(rows * width);
                 }
                 if (gradients.asks(1)) product(inner, width, rows, true);
                 gradients.hand_on(3, doutputs[0]);
                 (void)slopes;
               });
  return y;
}

Sized PlannedOps::relu(SizeTape* tape, const Sized& x, std::int64_t rows,
                       std::int64_t width) const {
  Sized y = make(rows * width);
  const Sized slopes = x.tape ? make(rows * width) : Sized{};
  pass((x.tape ? 3 : 2) * as_double(rows * width));
  if (tape)
    tape->push({&y}, {x}, [=, this](const auto&, const auto& gradients) {
      const auto dx = gradients.of(0);
      pass(3 * as_double(rows * width));
      (void)slopes;
    });
  return y;
}

Sized PlannedOps::gated(SizeTape* tape, const Sized& x, std::int64_t rows,
                        std::int64_t inner) const {
  Sized y = make(rows * inner);
  pass(3 * as_double(rows * inner));
  if (tape)
    tape->push({&y}, {x}, [=, this, kept = x.block](const auto&, const auto& gradients) {
      const auto dx = gradients.of(0);
      pass(5 * as_double(rows * inner));
    });
  return y;
}

PlannedOps::Attended PlannedOps::attend(const HeadLayout& layout) const {
  const std::int64_t rows = layout.rows();
  const Sized rotated = make(rows * layout.rotated_width());
  pass(2 * as_double(rows * layout.rotated_width()));
  const Sized y = make(rows * layout.query_width());
  const Sized log_sum = make_full(rows * layout.heads);
  trace_.work.attention_flops += attention_flops(layout);
  ++trace_.work.kernels;
  return {.rotated = rotated, .y = y, .log_sum = log_sum};
}

void PlannedOps::attend_grad(const HeadLayout& layout) const {
  const std::int64_t rows = layout.rows(), segments = layout.batch * layout.segments;
  if (has_fast_kernels(layout)) {
    const std::int64_t tiles = (layout.tokens + kAttentionTile - 1) / kAttentionTile;
    const auto row_sums = workspace(segments * layout.heads * tiles * kAttentionTile * 2 * 4);
    // Gradients of scores, of as many key heads at a time as have room (attention_hopper.cu).
    const std::int64_t each =
        layout.group() * tiles * (tiles + 1) / 2 * kAttentionTile * kAttentionTile * 2;
    const auto scores = workspace(
        each * std::clamp<std::int64_t>(kMostScoreBytes / each, 1, segments * layout.kv_heads));
  } else {
    const auto turned = workspace(rows * layout.rotated_width() * options_.element_bytes);
    pass(3 * as_double(rows * layout.rotated_width()));
  }
  trace_.work.attention_grad_flops += 2.5 * attention_flops(layout);
  trace_.work.kernels += 3;
}

Sized PlannedOps::rotary_attention(SizeTape* tape, const Sized& qkv,
                                   const HeadLayout& layout) const {
  const Attended made = attend(layout);
  Sized y = made.y;
  if (tape)
    tape->push({&y}, {qkv}, [=, this, kept = qkv.block](const auto&, const auto& gradients) {
      const auto dqkv = gradients.of(0);
      attend_grad(layout);
      (void)made;
    });
  return y;
}

Sized PlannedOps::columns_of(const Sized& x, std::int64_t rows, std::int64_t bytes) const {
  trace_.work.elementwise_bytes += 2 * as_double(bytes);
  ++trace_.work.kernels;
  if (rows > 1) return {.block = trace_.take(bytes, MemoryKind::kActivations)};
  const auto view = std::make_shared<const std::pair<std::int64_t, Trace::Block>>(bytes, x.block);
  return {.block = Trace::Block(view, &view->first)};
}

Sized PlannedOps::join_columns(SizeTape* tape, const std::vector<Sized>& parts,
                               std::int64_t rows) const {
  std::int64_t bytes = 0;
  std::vector<std::int64_t> sizes;
  for (const Sized& part : parts) {
    sizes.push_back(part.bytes());
    bytes += part.bytes();
  }
  Sized y{.block = trace_.take(bytes, MemoryKind::kActivations)};
  pass(2 * as_double(bytes / options_.element_bytes));
  if (tape)
    tape->push({&y}, parts, [=, this](const auto& doutputs, const auto& gradients) {
      for (std::size_t i = 0; i < sizes.size(); ++i)
        gradients.hand_on(i, columns_of({.block = doutputs[0]}, rows, sizes[i]).block);
    });
  return y;
}

Sized PlannedOps::take_columns(SizeTape* tape, const Sized& x, std::int64_t elements) const {
  return moved(tape, make(elements), {x}, elements);
}

Sized PlannedOps::rows_chosen(SizeTape* tape, const Sized& x, std::int64_t elements,
                              const Sized& others) const {
  return moved(tape, make(elements), {x, others}, elements);
}

Sized PlannedOps::moved(SizeTape* tape, Sized y, std::vector<Sized> inputs,
                        std::int64_t elements) const {
  pass(2 * as_double(elements));
  if (tape)
    tape->push({&y}, std::move(inputs), [=, this](const auto&, const auto& gradients) {
      const auto dx = gradients.of(0);
      pass(2 * as_double(elements));
    });
  return y;
}

SizedState PlannedOps::memory_sums(const HeadLayout& layout) const {
  const std::int64_t states = layout.batch * layout.segments * layout.kv_heads;
  trace_.work.memory_bytes += 2 * key_bytes(layout);
  ++trace_.work.kernels;
  return {.matrix = make_full(states * layout.head_width * layout.head_width),
          .normalizer = make_full(states * layout.head_width)};
}

PlannedOps::AttentionAndSums PlannedOps::rotary_attention_and_sums(SizeTape* tape, const Sized& qkv,
                                                                   const HeadLayout& layout) const {
  const Attended made = attend(layout);
  AttentionAndSums result{.y = made.y, .sums = memory_sums(layout)};
  if (tape)
    tape->push({&result.y, &result.sums.matrix, &result.sums.normalizer}, {qkv},
               [=, this, kept = qkv.block](const auto&, const auto& gradients) {
                 const auto dqkv = gradients.of(0);
                 Trace::Block rounded;
                 if (has_fast_kernels(layout)) {  // added where attention's are
                   rounded = workspace(layout.matrix_shape().size() * options_.element_bytes);
                   trace_.work.memory_bytes += key_bytes(layout);
                 } else {
                   trace_.work.memory_bytes += 4 * key_bytes(layout);
                   ++trace_.work.kernels;
                 }
                 attend_grad(layout);
                 (void)made;
               });
  return result;
}

PlannedOps::Loss PlannedOps::cross_entropy(SizeTape* tape, const Sized& x, const Sized& weight,
                                           std::int64_t rows, std::int64_t width,
                                           std::int64_t vocabulary) const {
  const Sized nll = make_full(rows);
  const bool wanted = x.tape || weight.tape;
  const Sized dx = x.tape ? make(rows * width) : Sized{};
  const bool narrow = wanted && on_gpu();
  const std::int64_t chunk = logit_rows(rows, vocabulary, options_.device);
  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t count = std::min(chunk, rows - begin), elements = count * vocabulary;
    const Sized logits =
        narrow ? make(elements, MemoryKind::kLogits) : make_full(elements, MemoryKind::kLogits);
    const bool same = narrow || options_.element_bytes == options_.full_bytes;
    const Sized dlogits = wanted && !same ? make(elements, MemoryKind::kLogits) : Sized{};
    product(count, vocabulary, width);
    if (divided())
      lose_divided(count, elements);
    else
      pass(2 * as_double(elements));
    if (dx) {
      product(count, width, vocabulary);
      sum_over_tensors(count * width);
    }
    if (weight.tape) product(vocabulary, width, count, true);
  }
  Sized loss = make_full(1);
  if (tape)
    tape->push({&loss}, {x, weight}, [=, this](const auto&, const auto& gradients) {
      if (const auto target = gradients.of(0)) pass(2 * as_double(rows * width));
      (void)dx;
    });
  return {.loss = loss, .nll = nll};
}

}  // namespace infini
