#include "trainer/plan_model.h"

namespace infini {

PlannedModel::Stream PlannedModel::add_norm(SizeTape* tape, const Stream& stream,
                                            std::int64_t rows) const {
  if (!stream.branch)
    return {.sum = stream.sum, .branch = ops_.rms_norm(tape, stream.sum, rows, model_.d_model)};
  const PlannedOps::ResidualNorm out =
      ops_.add_rms_norm(tape, stream.sum, stream.branch, rows, model_.d_model);
  return {.sum = out.sum, .branch = out.y};
}

Sized PlannedModel::project(SizeTape* tape, const Sized& x, const HeadLayout& layout) const {
  return ops_.linear(tape, x, layout.rows(), model_.d_model, layout.qkv_width(), Split::kColumns);
}

Sized PlannedModel::feed_forward(SizeTape* tape, const Sized& x, std::int64_t rows) const {
  const std::int64_t width = model_.d_model, inner = model_.inner_width();
  if (model_.activation == Activation::kGelu)
    return ops_.gelu_feed_forward(tape, x, rows, width, inner);
  const bool gated = model_.activation == Activation::kSwiglu;
  const Sized up = ops_.linear(tape, x, rows, width, gated ? 2 * inner : inner, Split::kColumns);
  const Sized active =
      gated ? ops_.swiglu(tape, up, rows, inner) : ops_.relu(tape, up, rows, inner);
  return ops_.linear(tape, active, rows, inner, width, Split::kRows);
}

PlannedModel::BlockOutput PlannedModel::block(SizeTape* tape, const Stream& stream,
                                              const HeadLayout& layout,
                                              const SizedState& memory) const {
  const std::int64_t rows = layout.rows();
  const Stream before = add_norm(tape, stream, rows);
  Sized attended;
  SizedState after;
  {
    const Sized qkv = project(tape, before.branch, layout);
    const Sized local = ops_.rotary_attention(tape, qkv, layout);
    const PlannedMemory::History history = memory_.remember(tape, qkv, layout, memory);
    const Sized mixed = memory_.recall(tape, qkv, history.before, local, layout);
    attended = ops_.linear(tape, mixed, rows, layout.query_width(), model_.d_model, Split::kRows);
    after = history.after;
  }
  const Stream middle = add_norm(tape, {.sum = before.sum, .branch = attended}, rows);
  return {.stream = {.sum = middle.sum, .branch = feed_forward(tape, middle.branch, rows)},
          .memory = after};
}

PlannedModel::BlockOutput PlannedModel::recomputed_block(SizeTape* tape, const Stream& stream,
                                                         const HeadLayout& layout,
                                                         const SizedState& memory) const {
  if (!tape) return block(nullptr, stream, layout, memory);
  const std::vector<Sized> inputs{stream.sum, stream.branch, memory.matrix, memory.normalizer};
  std::vector<Sized> values;
  for (const Sized& input : inputs) values.push_back(input.unwatched());
  BlockOutput out = block(nullptr, {.sum = values[0], .branch = values[1]}, layout,
                          {.matrix = values[2], .normalizer = values[3]});
  const auto repeat = [=, this](const std::vector<Trace::Block>& doutputs,
                                const SizeTape::Gradients& gradients) {
    SizeTape again(ops_.trace());
    std::vector<Sized> watched = values;
    for (std::size_t i = 0; i < values.size(); ++i)
      if (const auto target = gradients.of(i)) watched[i] = again.watch(values[i], target);
    const BlockOutput repeated = block(&again, {.sum = watched[0], .branch = watched[1]}, layout,
                                       {.matrix = watched[2], .normalizer = watched[3]});
    const Sized outputs[] = {repeated.stream.sum, repeated.stream.branch, repeated.memory.matrix,
                             repeated.memory.normalizer};
    for (std::size_t i = 0; i < doutputs.size(); ++i)
      if (doutputs[i] && outputs[i].tape) again.seed(outputs[i]);
    again.backward();
  };
  tape->push({&out.stream.sum, &out.stream.branch, &out.memory.matrix, &out.memory.normalizer},
             inputs, repeat);
  return out;
}

PlannedModel::Output PlannedModel::forward(SizeTape* tape, const HeadLayout& layout,
                                           const Sized& tokens, const SizedMemories& memory,
                                           bool recompute_blocks) const {
  Work& work = ops_.trace().work;
  work.value_passes += tape ? 2 : 1;
  work.gradient_passes += tape ? 1 : 0;
  Stream stream{.sum = ops_.embedding(tape, layout.rows(), model_.d_model, tokens), .branch = {}};
  SizedMemories after;
  for (int layer = 0; layer < model_.layers; ++layer) {
    const BlockOutput out = recompute_blocks ? recomputed_block(tape, stream, layout, memory[layer])
                                             : block(tape, stream, layout, memory[layer]);
    stream = out.stream;
    after.push_back(out.memory);
  }
  return {.hidden = add_norm(tape, stream, layout.rows()).branch, .memory = after};
}

SizedMemories PlannedModel::remember(const HeadLayout& layout, const Sized& tokens,
                                     const SizedMemories& memory) const {
  ++ops_.trace().work.value_passes;
  Stream stream{.sum = ops_.embedding(nullptr, layout.rows(), model_.d_model, tokens),
                .branch = {}};
  SizedMemories after;
  for (int layer = 0; layer + 1 < model_.layers; ++layer) {
    const BlockOutput out = block(nullptr, stream, layout, memory[layer]);
    stream = out.stream;
    after.push_back(out.memory);
  }
  const Stream normed = add_norm(nullptr, stream, layout.rows());
  const Sized qkv = project(nullptr, normed.branch, layout);
  after.push_back(memory_.remember(nullptr, qkv, layout, memory.back()).after);
  return after;
}

PlannedOps::Loss PlannedModel::loss(SizeTape* tape, const Sized& hidden, std::int64_t rows) const {
  return ops_.cross_entropy(tape, hidden, rows, model_.d_model, model_.vocabulary);
}

}  // namespace infini
