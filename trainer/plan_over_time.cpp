#include "trainer/plan_over_time.h"

#include "tensor/ops/complex_average.h"

namespace infini {
namespace {

// Rows of which one block sums a part (tensor/ops/timestep_norm.cu).
constexpr std::int64_t kNormRows = 128;

// Closures below keep what their namesakes capture: by `kept = ...`, or by naming it in (void).

}  // namespace

PlannedOverTime::Output PlannedOverTime::attend(SizeTape* tape, const LayerPart& part,
                                                const Sized& x, const HeadLayout& layout,
                                                const SizedState& memory) const {
  const std::int64_t rows = layout.rows(), width = model_.d_model, heads = layout.query_width();
  const auto linear = [&](const Sized& from, const char* name, std::int64_t inputs,
                          std::int64_t outputs, const Sized& residual = {}) {
    return ops_.linear(tape, from, part({name}), rows, inputs, outputs, Split::kNone, residual);
  };
  const Averaged averaged = average(tape, part, x, layout, memory);
  const Sized qkv = shared_heads(tape, part, averaged, layout);
  Sized gated;
  {
    const Sized attended = ops_.rotary_attention(tape, qkv, layout);
    gated = gated_heads(tape, part, linear(averaged.y, "attention.gate.weight", width, heads),
                        attended, layout);
  }
  const Sized hidden = linear(averaged.y, "attention.hidden.weight", width, width, x);
  const Sized output = linear(gated, "attention.output.weight", heads, width, hidden);
  return {.y = ops_.add_bias(tape, output, part({"attention.output.bias"}), rows, width),
          .after = averaged.after};
}

SizedState PlannedOverTime::remember(const LayerPart& part, const Sized& x,
                                     const HeadLayout& layout, const SizedState& memory) const {
  return average(nullptr, part, x, layout, memory).after;
}

CarriedParts PlannedOverTime::carried(std::int64_t rows) const {
  if (!model_.normalises_over_time()) return {};
  const std::int64_t full = ops_.options().full_bytes;
  return {{&SizedState::averages, rows * model_.d_model * model_.ema_size * 2 * full},
          {&SizedState::norm_moments, rows * model_.timestep_groups() * 2 * full},
          {&SizedState::norm_tokens, rows * full}};
}

PlannedOverTime::Averaged PlannedOverTime::average(SizeTape* tape, const LayerPart& part,
                                                   const Sized& x, const HeadLayout& layout,
                                                   const SizedState& memory) const {
  const std::int64_t rows = layout.rows(), batch = layout.batch, width = model_.d_model,
                     groups = model_.timestep_groups(), full = ops_.options().full_bytes;
  Averaged result;
  {
    const Sized tokens = memory.norm_tokens ? memory.norm_tokens : ops_.make_full(batch),
                moments =
                    memory.norm_moments ? memory.norm_moments : ops_.make_full(batch * groups * 2);
    result.normed = ops_.make(rows * width);
    const Sized counts = ops_.make_full(rows), row_moments = ops_.make_full(rows * groups * 2);
    result.after.norm_tokens = ops_.make_full(batch);
    result.after.norm_moments = ops_.make_full(batch * groups * 2);
    if (tape)
      tape->push({&result.normed, &result.after.norm_moments},
                 {x, part({"attention.time_norm.weight"}), part({"attention.time_norm.bias"}),
                  memory.norm_moments},
                 [=, this, kept = x.block, given = moments.block, before = tokens.block](
                     const auto&, const auto& gradients) {
                   const auto dx = gradients.of(0), dbefore = gradients.of(3);
                   const std::int64_t parts =
                       ops_.on_gpu() ? (rows + kNormRows - 1) / kNormRows : batch;
                   const auto sums = ops_.workspace(ops_.on_gpu() ? 3 * rows * groups * full : 0);
                   const auto partial = ops_.workspace(parts * 2 * width * full);
                   (void)counts, (void)row_moments;
                 });
  }
  const std::int64_t state = width * model_.ema_size * 2, chunk = ComplexAverageKernels::kChunk,
                     chunks = layout.segments * ((layout.tokens + chunk - 1) / chunk);
  result.y = ops_.make(rows * width);
  result.after.averages = ops_.make_full(batch * state);
  const Sized starts = ops_.make_full(batch * chunks * state);
  if (tape)
    tape->push({&result.y, &result.after.averages},
               {result.normed, part({"attention.average.alpha"}), part({"attention.average.delta"}),
                part({"attention.average.frequency"}), part({"attention.average.skip"}),
                part({"attention.average.eta"}), memory.averages},
               [=, this, kept = result.normed.block](const auto&, const auto& gradients) {
                 const auto dx = gradients.of(0), dbefore = gradients.of(6);
                 // Gradients of the starts, and six sums of each average.
                 const auto sums =
                     ops_.workspace(ops_.on_gpu() ? starts.bytes() + 3 * starts.bytes() : 0);
               });
  return result;
}

Sized PlannedOverTime::shared_heads(SizeTape* tape, const LayerPart& part, const Averaged& averaged,
                                    const HeadLayout& layout) const {
  const std::int64_t rows = layout.rows(), width = model_.d_model, heads = layout.query_width();
  const Sized z = ops_.linear(tape, averaged.y, part({"attention.shared.weight"}), rows, width,
                              heads, Split::kNone),
              w = ops_.linear(tape, averaged.normed, part({"attention.value.weight"}), rows, width,
                              heads, Split::kNone);
  Sized qkv = ops_.make(rows * layout.qkv_width());
  if (tape)
    tape->push({&qkv},
               {z, w, part({"attention.shared.bias"}), part({"attention.query_scale"}),
                part({"attention.query_shift"}), part({"attention.key_scale"}),
                part({"attention.key_shift"}), part({"attention.value.bias"})},
               [first = z.block, second = w.block](const auto&, const auto& gradients) {
                 const auto dz = gradients.of(0), dw = gradients.of(1);
               });
  return qkv;
}

Sized PlannedOverTime::gated_heads(SizeTape* tape, const LayerPart& part, const Sized& gate,
                                   const Sized& x, const HeadLayout& layout) const {
  Sized y = ops_.make(layout.rows() * layout.query_width());
  if (tape)
    tape->push({&y}, {gate, part({"attention.gate.bias"}), x},
               [first = gate.block, second = x.block](const auto&, const auto& gradients) {
                 const auto dgate = gradients.of(0), dx = gradients.of(2);
               });
  return y;
}

}  // namespace infini
