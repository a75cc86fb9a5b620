#include "tensor/ops/rotary_attention.h"

#include "tensor/ops/rotary.h"

namespace infini {
namespace {

// Attention's part of the gradient of qkv. With gradients of sums in `back`, it is false and
// nothing is done where the device cannot add their part at once.
struct AttentionPart {
  Attended made;
  Tensor table;

  bool grad(const Tensor& dy, const Tensor& row_dots, const TurnBack& back,
            const GradTarget& dvalues) const {
    const AttentionKernels& device = attention_kernels(dy.device());
    AttentionKernels::AttentionGrad args = made.grad_of(dy);
    args.row_dots = row_dots;
    args.dqkv = dvalues;
    if (device.attention_grad(args, back)) return true;
    if (back.dmatrix) return false;
    args.drotated = {.tensor = Tensor::empty_like(made.rotated), .accumulate = false};
    device.attention_grad(args);
    rotary_kernels(dy.device())
        .rotate_grad({.drotated = args.drotated.tensor,
                      .table = table,
                      .layout = made.layout,
                      .first_position = 0,
                      .dqueries = back.dqueries,
                      .dkeys = back.dkeys});
    return true;
  }
};

AttentionPart attend_rotated(const Tensor& qkv, const Tensor& table, const HeadLayout& layout,
                             double scale) {
  return {.made = attend(rotate(qkv, table, layout), qkv, layout, scale), .table = table};
}

}  // namespace

Tensor rotary_attention(const Tensor& qkv, const Tensor& table, const HeadLayout& layout,
                        double scale) {
  const AttentionPart part = attend_rotated(qkv.unwatched(), table, layout, scale);
  return record(part.made.y, {qkv}, [=](const Tensor& dy, Gradients& gradients) {
    part.grad(dy, {},
              {.table = table,
               .first_position = 0,
               .dqueries = gradients.of(0, layout.query_columns()),
               .dkeys = gradients.of(0, layout.key_columns())},
              gradients.of(0, layout.value_columns()));
  });
}

AttentionAndSums rotary_attention_and_sums(const Tensor& qkv, const Tensor& table,
                                           const Tensor& keep, const HeadLayout& layout,
                                           double scale) {
  const Tensor in = qkv.unwatched();
  const AttentionPart part = attend_rotated(in, table, layout, scale);
  const MemorySums sums = memory_sums(in, keep, layout);
  const auto outputs =
      record_all<4>({part.made.y, sums.matrix, sums.normalizer, part.made.log_sum}, {qkv},
                    [=](std::span<const Tensor> doutputs, Gradients& gradients) {
                      const Tensor &dy = doutputs[0], &dmatrix = doutputs[1],
                                   &dnormalizer = doutputs[2], &row_dots = doutputs[3];
                      const auto sums_grad = [&](const GradTarget& dqkv) {
                        memory_kernels(in.device())
                            .sums_grad({.qkv = in,
                                        .keep = keep,
                                        .layout = layout,
                                        .dmatrix = dmatrix,
                                        .dnormalizer = dnormalizer,
                                        .dqkv = dqkv});
                      };
                      if (!dy) return sums_grad(gradients.of(0, layout.key_value_columns()));
                      TurnBack back{.table = table,
                                    .first_position = 0,
                                    .dqueries = gradients.of(0, layout.query_columns()),
                                    .dkeys = gradients.of(0, layout.key_columns()),
                                    .keep = keep,
                                    .dmatrix = dmatrix,
                                    .dnormalizer = dnormalizer};
                      GradTarget dvalues = gradients.of(0, layout.value_columns());
                      if (dmatrix && dnormalizer && part.grad(dy, row_dots, back, dvalues)) return;
                      back.dmatrix = back.dnormalizer = {};
                      if (dmatrix || dnormalizer) {
                        const bool accumulate = back.dkeys.accumulate || dvalues.accumulate;
                        if (accumulate) {
                          zeroed(back.dkeys, layout.key_columns());
                          zeroed(dvalues, layout.value_columns());
                        }
                        sums_grad({.tensor = dvalues.tensor, .accumulate = accumulate});
                        back.dkeys.accumulate = dvalues.accumulate = true;
                      }
                      part.grad(dy, row_dots, back, dvalues);
                    });
  return {.y = outputs[0],
          .row_dots = outputs[3],
          .sums = {.matrix = outputs[1], .normalizer = outputs[2]}};
}

}  // namespace infini
