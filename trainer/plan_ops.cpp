#include "trainer/plan_ops.h"

#include <algorithm>

#include "tensor/ops/cross_entropy.h"

namespace infini {
namespace {

// Partial sums of a norm's weight gradient: one for each block of threads that runs at a time on a
// large GPU, or for each 64 rows on a CPU (tensor/ops/norm.cu, norm.cpp).
constexpr std::int64_t kGpuNormPieces = 528, kCpuNormRows = 64;
// Consecutive tokens, sorted by id, that one block adds up (tensor/ops/embedding.cu).
constexpr std::int64_t kEmbeddingWindow = 32;
constexpr std::int64_t kAttentionTile = 64;

// Closures below keep what their namesakes capture: by `kept = ...`, or by naming it in (void).

double as_double(std::int64_t value) { return static_cast<double>(value); }

}  // namespace

void PlannedOps::sum_over_tensors(std::int64_t elements) const {
  if (options_.tensors == 1) return;
  ++trace_.work.tensor_sums;
  trace_.work.tensor_sum_bytes += as_double(elements * options_.element_bytes);
}

Sized PlannedOps::embedding(SizeTape* tape, std::int64_t rows, std::int64_t width,
                            const Sized& tokens) const {
  Sized y = make(rows * width);
  pass(2 * as_double(rows * width));
  sum_over_tensors(rows * width);
  if (tape)
    tape->push({&y}, {}, [=, this](const auto&, const SizeTape::Gradients&) {
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

Sized PlannedOps::linear(SizeTape* tape, const Sized& x, std::int64_t rows, std::int64_t width,
                         std::int64_t outputs, Split split) const {
  Sized y = make(rows * outputs);
  product(rows, outputs, width);
  if (split == Split::kRows) sum_over_tensors(rows * outputs);
  if (tape)
    tape->push({&y}, {x}, [=, this, kept = x.block](const auto&, const auto& gradients) {
      if (const auto dx = gradients.of(0)) {
        product(rows, width, outputs);
        if (split == Split::kColumns) sum_over_tensors(rows * width);
      }
      product(outputs, width, rows, true);
    });
  return y;
}

Trace::Block PlannedOps::norm_workspace(std::int64_t rows, std::int64_t width) const {
  const std::int64_t pieces =
      on_gpu() ? std::min(kGpuNormPieces, rows) : (rows + kCpuNormRows - 1) / kCpuNormRows + 1;
  return workspace(pieces * width * options_.full_bytes);
}

Sized PlannedOps::rms_norm(SizeTape* tape, const Sized& x, std::int64_t rows,
                           std::int64_t width) const {
  Sized y = make(rows * width);
  const Sized inverse = make_full(rows);
  pass(2 * as_double(rows * width));
  if (tape)
    tape->push({&y}, {x}, [=, this, kept = x.block](const auto&, const auto& gradients) {
      const auto dx = gradients.of(0);
      const auto partial = norm_workspace(rows, width);
      pass(3 * as_double(rows * width));
      ++trace_.work.kernels;
      (void)inverse;
    });
  return y;
}

PlannedOps::ResidualNorm PlannedOps::add_rms_norm(SizeTape* tape, const Sized& x,
                                                  const Sized& branch, std::int64_t rows,
                                                  std::int64_t width) const {
  Sized sum = make(rows * width), y = make(rows * width);
  const Sized inverse = make_full(rows);
  pass(4 * as_double(rows * width));
  if (tape)
    tape->push({&sum, &y}, {x, branch},
               [=, this, kept = sum.block](const auto&, const auto& gradients) {
                 const bool one = gradients.share(0, 1);
                 const auto dx = gradients.of(0);
                 const auto dbranch = one ? nullptr : gradients.of(1);
                 const auto partial = norm_workspace(rows, width);
                 pass((one ? 4 : 5) * as_double(rows * width));
                 ++trace_.work.kernels;
                 (void)inverse;
               });
  return {.sum = sum, .y = y};
}

Sized PlannedOps::gelu_feed_forward(SizeTape* tape, const Sized& x, std::int64_t rows,
                                    std::int64_t width, std::int64_t inner) const {
  const Sized hidden = make(rows * inner);
  const Sized slopes = tape ? make(rows * inner) : Sized{};
  Sized y = make(rows * width);
  product(rows, inner, width);
  product(rows, width, inner);
  sum_over_tensors(rows * width);
  if (tape)
    tape->push({&y}, {x}, [=, this, kept = x.block](const auto&, const auto& gradients) {
      product(width, inner, rows, true);
      const auto dx = gradients.of(0);
      const Sized dinner = make(rows * inner);
      product(rows, inner, width);
      product(rows, width, inner);
      sum_over_tensors(rows * width);
      product(inner, width, rows, true);
      (void)hidden, (void)slopes;
    });
  return y;
}

Sized PlannedOps::relu(SizeTape* tape, const Sized& x, std::int64_t rows,
                       std::int64_t width) const {
  Sized y = make(rows * width);
  const Sized slopes = tape ? make(rows * width) : Sized{};
  pass((tape ? 3 : 2) * as_double(rows * width));
  if (tape)
    tape->push({&y}, {x}, [=, this](const auto&, const auto& gradients) {
      const auto dx = gradients.of(0);
      pass(3 * as_double(rows * width));
      (void)slopes;
    });
  return y;
}

Sized PlannedOps::swiglu(SizeTape* tape, const Sized& x, std::int64_t rows,
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

Sized PlannedOps::rotary_attention(SizeTape* tape, const Sized& qkv,
                                   const HeadLayout& layout) const {
  const std::int64_t rows = layout.rows(), rotated_width = layout.rotated_width();
  const Sized rotated = make(rows * rotated_width);
  pass(2 * as_double(rows * rotated_width));
  Sized y = make(rows * layout.query_width());
  const Sized log_sum = make_full(rows * layout.heads);
  // Two products over half of the square of a segment.
  const double flops = 2 * as_double(rows * layout.query_width()) * as_double(layout.tokens);
  trace_.work.attention_flops += flops;
  ++trace_.work.kernels;
  if (tape)
    tape->push({&y}, {qkv},
               [=, this, kept = qkv.block, out = y.block](const auto&, const auto& gradients) {
                 const auto dqkv = gradients.of(0);
                 Trace::Block scratch;
                 if (has_fast_kernels(layout)) {
                   const std::int64_t tiles = (layout.tokens + kAttentionTile - 1) / kAttentionTile;
                   scratch = workspace(layout.batch * layout.segments * layout.heads * tiles *
                                       kAttentionTile * 2 * 4);
                 } else {
                   scratch = workspace(rows * rotated_width * options_.element_bytes);
                   pass(3 * as_double(rows * rotated_width));
                 }
                 trace_.work.attention_grad_flops += 2.5 * flops;
                 trace_.work.kernels += 3;
                 (void)rotated, (void)log_sum;
               });
  return y;
}

PlannedOps::Loss PlannedOps::cross_entropy(SizeTape* tape, const Sized& x, std::int64_t rows,
                                           std::int64_t width, std::int64_t vocabulary) const {
  const Sized nll = make_full(rows);
  const Sized dx = tape ? make(rows * width) : Sized{};
  const bool narrow = tape && on_gpu();
  const std::int64_t chunk = logit_rows(rows, vocabulary, options_.device);
  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t count = std::min(chunk, rows - begin), elements = count * vocabulary;
    const Sized logits =
        narrow ? make(elements, MemoryKind::kLogits) : make_full(elements, MemoryKind::kLogits);
    const bool same = narrow || options_.element_bytes == options_.full_bytes;
    const Sized dlogits = tape && !same ? make(elements, MemoryKind::kLogits) : Sized{};
    product(count, vocabulary, width);
    pass(2 * as_double(elements));
    if (!tape) continue;
    product(count, width, vocabulary);
    product(vocabulary, width, count, true);
  }
  sum_over_tensors(rows * width);  // dx; the sums of the softmax are a number a row
  Sized loss = make_full(1);
  if (tape)
    tape->push({&loss}, {x}, [=, this](const auto&, const auto& gradients) {
      const auto target = gradients.of(0);
      pass(2 * as_double(rows * width));
      (void)dx;
    });
  return {.loss = loss, .nll = nll};
}

}  // namespace infini
