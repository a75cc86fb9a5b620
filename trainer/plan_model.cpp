#include "trainer/plan_model.h"

namespace infini {
namespace {

// Places among what a lender lends: 0 is the embedding.
int part_of(int layer) { return layer + 1; }

}  // namespace

Sized PlannedModel::norm(SizeTape* tape, const Sized& x, std::int64_t rows) const {
  return ops_.rms_norm(tape, x, rows, model_.d_model);
}

Sized PlannedModel::project(SizeTape* tape, const Sized& x, const HeadLayout& layout) const {
  Sized qkv =
      ops_.linear(tape, x, layout.rows(), model_.d_model, layout.qkv_width(), Split::kColumns);
  if (model_.projection_biases) qkv = ops_.add_bias(tape, qkv, layout.rows(), layout.qkv_width());
  return model_.head_norms ? ops_.head_norm(tape, qkv, layout) : qkv;
}

Sized PlannedModel::feed_forward(SizeTape* tape, const Sized& x, const Sized& residual,
                                 std::int64_t rows) const {
  const std::int64_t width = model_.d_model, inner = model_.inner_width();
  if (model_.activation == Activation::kGelu)
    return ops_.gelu_feed_forward(tape, x, residual, rows, width, inner);
  const bool gated = model_.activation == Activation::kSwiglu;
  const Sized up = ops_.linear(tape, x, rows, width, gated ? 2 * inner : inner, Split::kColumns);
  const Sized active =
      gated ? ops_.swiglu(tape, up, rows, inner) : ops_.relu(tape, up, rows, inner);
  return ops_.linear(tape, active, rows, inner, width, Split::kRows, residual);
}

PlannedLender::Loan PlannedModel::borrow_block(SizeTape* tape, int layer) const {
  if (!lender_) return {};
  const int next = tape ? layer - 1 : layer + 1;
  const bool there = next >= 0 && next < model_.layers;
  const PlannedLender::Loan loan =
      lender_->borrow(tape, part_of(layer), there ? part_of(next) : PlannedLender::kNone);
  // The first of its products keeps them to the end.
  if (tape) tape->on_backward([values = loan.values] {});
  return loan;
}

Sized PlannedModel::embed(SizeTape* tape, const HeadLayout& layout, const Sized& tokens) const {
  PlannedLender::Loan loan;
  if (lender_) loan = lender_->borrow(tape, 0, part_of(0), &table_gradients_);
  const Sized x = ops_.embedding(tape, layout.rows(), model_.d_model, tokens);
  if (lender_) lender_->ask(loan, tape);
  return x;
}

PlannedModel::BlockOutput PlannedModel::block(SizeTape* tape, int layer, const Sized& x,
                                              const HeadLayout& layout,
                                              const SizedState& memory) const {
  const PlannedLender::Loan loan = borrow_block(tape, layer);
  const std::int64_t rows = layout.rows();
  const Sized before = norm(tape, x, rows);
  Sized attended;
  SizedState after;
  {
    const Sized qkv = project(tape, before, layout);
    Sized mixed;
    if (memory_.rule() == MemoryRule::kNone) {
      mixed = ops_.rotary_attention(tape, qkv, layout);
    } else {
      const PlannedOps::AttentionAndSums local = ops_.rotary_attention_and_sums(tape, qkv, layout);
      const PlannedMemory::History history =
          memory_.accumulate(tape, qkv, local.sums, layout, memory);
      mixed = memory_.recall(tape, qkv, history.before, local.y, layout);
      after = history.after;
    }
    attended =
        ops_.linear(tape, mixed, rows, layout.query_width(), model_.d_model, Split::kRows, x);
  }
  const Sized middle = norm(tape, attended, rows);
  const BlockOutput out{.x = feed_forward(tape, middle, attended, rows), .memory = after};
  if (lender_) lender_->ask(loan, tape);
  return out;
}

PlannedModel::BlockOutput PlannedModel::recomputed_block(SizeTape* tape, int layer, const Sized& x,
                                                         const HeadLayout& layout,
                                                         const SizedState& memory) const {
  if (!tape) return block(nullptr, layer, x, layout, memory);
  const std::vector<Sized> inputs{x, memory.matrix, memory.normalizer};
  std::vector<Sized> values;
  for (const Sized& input : inputs) values.push_back(input.unwatched());
  BlockOutput out =
      block(nullptr, layer, values[0], layout, {.matrix = values[1], .normalizer = values[2]});
  const auto repeat = [=, this](const std::vector<Trace::Block>& doutputs,
                                const SizeTape::Gradients& gradients) {
    SizeTape again(ops_.trace());
    std::vector<Sized> watched = values;
    for (std::size_t i = 0; i < values.size(); ++i)
      if (const auto target = gradients.of(i)) watched[i] = again.watch(values[i], target);
    const BlockOutput repeated =
        block(&again, layer, watched[0], layout, {.matrix = watched[1], .normalizer = watched[2]});
    const Sized outputs[] = {repeated.x, repeated.memory.matrix, repeated.memory.normalizer};
    for (std::size_t i = 0; i < doutputs.size(); ++i)
      if (doutputs[i] && outputs[i].tape) again.seed(outputs[i]);
    again.backward();
  };
  tape->push({&out.x, &out.memory.matrix, &out.memory.normalizer}, inputs, repeat);
  return out;
}

PlannedModel::Output PlannedModel::forward(SizeTape* tape, const HeadLayout& layout,
                                           const Sized& tokens, const SizedMemories& memory,
                                           bool recompute_blocks) const {
  const Sized x = embed(tape, layout, tokens);
  if (model_.has_memory_tokens())
    return with_memory_tokens(tape, x, layout, memory[0], recompute_blocks);
  const Streamed out = through_blocks(tape, x, layout, memory, recompute_blocks);
  return {.hidden = norm(tape, out.x, layout.rows()), .memory = out.memory};
}

PlannedModel::Streamed PlannedModel::through_blocks(SizeTape* tape, const Sized& x,
                                                    const HeadLayout& layout,
                                                    const SizedMemories& memory,
                                                    bool recompute_blocks) const {
  Streamed stream{.x = x, .memory = {}};
  for (int layer = 0; layer < model_.layers; ++layer) {
    const BlockOutput out = recompute_blocks
                                ? recomputed_block(tape, layer, stream.x, layout, memory[layer])
                                : block(tape, layer, stream.x, layout, memory[layer]);
    stream.x = out.x;
    stream.memory.push_back(out.memory);
  }
  return stream;
}

PlannedModel::Output PlannedModel::with_memory_tokens(SizeTape* tape, const Sized& x,
                                                      const HeadLayout& layout,
                                                      const SizedState& memory,
                                                      bool recompute_blocks) const {
  const std::int64_t batch = layout.batch, width = model_.d_model;
  const std::int64_t tokens = batch * layout.tokens * width,
                     read = batch * model_.read_tokens() * width,
                     written = batch * model_.written_tokens() * width;
  HeadLayout alone = layout;
  alone.segments = 1;
  alone.tokens = model_.positions(layout.tokens);
  const bool accumulates = model_.architecture == Architecture::kAutoCompressor;
  const std::int64_t positions = alone.rows() * width;
  Sized vectors = memory.vectors ? memory.vectors : ops_.make(read);
  std::vector<Sized> hidden;
  for (std::int64_t s = 0; s < layout.segments; ++s) {
    const Sized before = ops_.rows_chosen(tape, vectors, read);
    const Sized last = accumulates ? ops_.rows_chosen(tape, ops_.make(written), written) : before;
    Sized rows = ops_.join_columns(tape, {before, ops_.take_columns(tape, x, tokens), last}, batch);
    if (accumulates) rows = ops_.rows_chosen(tape, rows, positions);
    const SizedMemories none(static_cast<std::size_t>(model_.layers));
    Sized out =
        norm(tape, through_blocks(tape, rows, alone, none, recompute_blocks).x, alone.rows());
    if (accumulates) out = ops_.rows_chosen(tape, out, positions);
    hidden.push_back(ops_.take_columns(tape, out, tokens));
    vectors = ops_.take_columns(tape, out, written);
    if (read > written)
      vectors = ops_.join_columns(tape, {ops_.take_columns(tape, before, read - written), vectors},
                                  batch);
  }
  return {.hidden = ops_.join_columns(tape, hidden, batch), .memory = {{.vectors = vectors}}};
}

SizedMemories PlannedModel::remember(const HeadLayout& layout, const Sized& tokens,
                                     const SizedMemories& memory) const {
  if (model_.has_memory_tokens()) return forward(nullptr, layout, tokens, memory, false).memory;
  Sized x = embed(nullptr, layout, tokens);
  SizedMemories after;
  for (int layer = 0; layer + 1 < model_.layers; ++layer) {
    const BlockOutput out = block(nullptr, layer, x, layout, memory[layer]);
    x = out.x;
    after.push_back(out.memory);
  }
  const PlannedLender::Loan loan = borrow_block(nullptr, model_.layers - 1);
  const Sized qkv = project(nullptr, norm(nullptr, x, layout.rows()), layout);
  if (memory_.rule() == MemoryRule::kNone) {
    after.emplace_back();
  } else {
    const SizedState sums = ops_.memory_sums(layout);
    after.push_back(memory_.accumulate(nullptr, qkv, sums, layout, memory.back()).after);
  }
  return after;
}

PlannedOps::Loss PlannedModel::loss(SizeTape* tape, const Sized& hidden, std::int64_t rows) const {
  PlannedLender::Loan loan;
  if (lender_) {
    const int head = model_.tied ? 0 : part_of(model_.layers);
    const int next = tape ? part_of(model_.layers - 1) : PlannedLender::kNone;
    loan = lender_->borrow(tape, head, next, model_.tied ? &table_gradients_ : nullptr);
    lender_->ask(loan);
  }
  return ops_.cross_entropy(tape, hidden, rows, model_.d_model, model_.vocabulary);
}

}  // namespace infini
