#include "trainer/plan_model.h"

#include <algorithm>

#include "model/transformer.h"

namespace infini {
namespace {

// Places among what a lender lends: 0 is the embedding.
int part_of(int layer) { return layer + 1; }

std::string block_prefix(int layer) { return text("blocks.", layer, "."); }

// x and the parts of a memory as one list, and back.
std::vector<Sized> with_state(const Sized& x, const SizedState& memory) {
  std::vector<Sized> list{x};
  for (const auto part : kSizedParts) list.push_back(memory.*part);
  return list;
}
SizedState state_of(const std::vector<Sized>& list) {
  SizedState memory;
  for (std::size_t i = 0; i < std::size(kSizedParts); ++i) memory.*kSizedParts[i] = list[i + 1];
  return memory;
}

}  // namespace

PlannedModel::PlannedModel(const PlannedOps& ops, const ModelConfig& model, const Frozen& frozen,
                           int groups, PlannedLender* lender)
    : ops_(ops),
      model_(model),
      frozen_(frozen),
      memory_(ops, model.memory, groups),
      cache_(ops, model),
      over_time_(ops, model),
      feedback_(ops, model),
      lender_(lender),
      block_trains_(static_cast<std::size_t>(model.layers)) {
  const std::vector<ParameterSpec> specs = parameter_specs(model, 1, 0, frozen);
  for (int layer = 0; layer < model.layers; ++layer)
    block_trains_[layer] = std::ranges::any_of(specs, [&](const ParameterSpec& spec) {
      return !spec.frozen && spec.name.starts_with(block_prefix(layer));
    });
}

Sized PlannedModel::parameter(SizeTape* tape, const std::vector<std::string>& names) const {
  return tape && !frozen_as_one(names, frozen_) ? tape->watch({}) : Sized{};
}

Sized PlannedModel::block_parameter(SizeTape* tape, int layer,
                                    std::initializer_list<const char*> names) const {
  std::vector<std::string> full;
  if (frozen_)
    for (const char* const name : names) full.push_back(block_prefix(layer) + name);
  return parameter(tape, full);
}

Sized PlannedModel::table(SizeTape* tape) const { return parameter(tape, {"embedding.weight"}); }

void PlannedModel::ask(SizeTape* tape, const PlannedLender::Loan& loan,
                       const Sized& parameter) const {
  if (lender_ && parameter.tape) lender_->ask(loan, tape);
}

Sized PlannedModel::norm(SizeTape* tape, const Sized& x, const Sized& weight,
                         std::int64_t rows) const {
  return ops_.rms_norm(
      tape, x, model_.offset_norms ? ops_.affine(tape, weight, model_.d_model, true) : weight, rows,
      model_.d_model);
}

Sized PlannedModel::block_norm(SizeTape* tape, int layer, const char* name, const Sized& x,
                               std::int64_t rows) const {
  return norm(tape, x, block_parameter(tape, layer, {name}), rows);
}

Sized PlannedModel::final_norm(SizeTape* tape, const Sized& x, std::int64_t rows) const {
  return norm(tape, x, parameter(tape, {"final_norm.weight"}), rows);
}

Sized PlannedModel::project(SizeTape* tape, int layer, const Sized& x, const HeadLayout& layout,
                            const PlannedLender::Loan& loan) const {
  const auto part = [&](std::initializer_list<const char*> names) {
    return block_parameter(tape, layer, names);
  };
  const std::int64_t rows = layout.rows(), width = layout.qkv_width();
  const Sized weight =
      part({"attention.query.weight", "attention.key.weight", "attention.value.weight"});
  Sized qkv = ops_.linear(tape, x, weight, rows, model_.d_model, width, Split::kColumns);
  ask(tape, loan, weight);
  if (model_.projection_biases)
    qkv = ops_.add_bias(
        tape, qkv, part({"attention.query.bias", "attention.key.bias", "attention.value.bias"}),
        rows, width);
  if (!model_.head_norms) return qkv;
  return ops_.head_norm(tape, qkv, part({"attention.query_norm.weight"}),
                        part({"attention.key_norm.weight"}), layout);
}

Sized PlannedModel::feed_forward(SizeTape* tape, int layer, const Sized& x, const Sized& residual,
                                 std::int64_t rows, const PlannedLender::Loan& loan) const {
  const std::int64_t width = model_.d_model, inner = model_.inner_width();
  const bool gated = model_.has_gated_activation();
  const Sized up =
      gated ? block_parameter(tape, layer, {"feed_forward.gate.weight", "feed_forward.up.weight"})
            : block_parameter(tape, layer, {"feed_forward.up.weight"});
  const Sized down = block_parameter(tape, layer, {"feed_forward.down.weight"});
  if (model_.activation == Activation::kGelu) {
    const Sized y = ops_.gelu_feed_forward(
        tape, {.x = x, .up = up, .down = down, .residual = residual}, rows, width, inner);
    ask(tape, loan, up.tape ? up : down);
    return y;
  }
  const Sized hidden =
      ops_.linear(tape, x, up, rows, width, gated ? 2 * inner : inner, Split::kColumns);
  ask(tape, loan, up);
  const Sized active =
      gated ? ops_.gated(tape, hidden, rows, inner) : ops_.relu(tape, hidden, rows, inner);
  const Sized y = ops_.linear(tape, active, down, rows, inner, width, Split::kRows, residual);
  ask(tape, loan, down);
  return y;
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
  const Sized weight = table(tape);
  const Sized x = ops_.embedding(tape, layout.rows(), model_.d_model, tokens, weight);
  ask(tape, loan, weight);
  const Sized rows =
      model_.embedding_scale == 1 ? x : ops_.affine(tape, x, layout.rows() * model_.d_model);
  if (model_.feedback_tokens() == 0) return rows;
  return feedback_.with_prompt(tape, rows, parameter(tape, {"memory_tokens.weight"}), layout);
}

CarriedParts PlannedModel::carried(int layer, std::int64_t rows) const {
  if (model_.normalises_over_time()) return over_time_.carried(rows);
  if (model_.feedback_tokens() > 0) return feedback_.carried(rows);
  return cache_.carried(layer, rows);
}

LayerPart PlannedModel::parts_of(SizeTape* tape, int layer) const {
  return [this, tape, layer](std::initializer_list<const char*> names) {
    return block_parameter(tape, layer, names);
  };
}

PlannedModel::BlockOutput PlannedModel::block(SizeTape* tape, int layer, const Sized& x,
                                              const HeadLayout& layout,
                                              const SizedState& memory) const {
  const PlannedLender::Loan loan = borrow_block(tape, layer);
  const std::int64_t rows = layout.rows();
  if (model_.normalises_over_time()) return block_over_time(tape, layer, x, layout, memory, loan);
  if (model_.feedback_tokens() > 0) return feedback_block(tape, layer, x, layout, memory, loan);
  const Sized before = block_norm(tape, layer, "attention_norm.weight", x, rows);
  Sized attended;
  SizedState after;
  {
    Sized mixed, qkv;
    std::vector<Sized> held;
    if (model_.has_relative_positions()) {
      const PlannedCache::Output read =
          cache_.attend(tape, layer, parts_of(tape, layer), before, layout, memory);
      mixed = read.heads;
      after = read.after;
      held = read.held;
    } else {
      qkv = project(tape, layer, before, layout, loan);
      if (memory_.rule() == MemoryRule::kNone) {
        mixed = ops_.rotary_attention(tape, qkv, layout);
      } else {
        const PlannedOps::AttentionAndSums local =
            ops_.rotary_attention_and_sums(tape, qkv, layout);
        const PlannedMemory::History history =
            memory_.accumulate(tape, qkv, local.sums, layout, memory);
        mixed = memory_.recall(tape, qkv, history.before,
                               block_parameter(tape, layer, {"attention.gate"}), local.y, layout);
        after = history.after;
      }
    }
    const Sized output = block_parameter(tape, layer, {"attention.output.weight"});
    attended = ops_.linear(tape, mixed, output, rows, layout.query_width(), model_.d_model,
                           Split::kRows, x);
    ask(tape, loan, output);
  }
  const Sized middle = block_norm(tape, layer, "feed_forward_norm.weight", attended, rows);
  return {.x = feed_forward(tape, layer, middle, attended, rows, loan), .memory = after};
}

PlannedModel::BlockOutput PlannedModel::block_over_time(SizeTape* tape, int layer, const Sized& x,
                                                        const HeadLayout& layout,
                                                        const SizedState& memory,
                                                        const PlannedLender::Loan& loan) const {
  const PlannedOverTime::Output out =
      over_time_.attend(tape, parts_of(tape, layer), x, layout, memory);
  const std::int64_t rows = layout.rows();
  const Sized middle = block_norm(tape, layer, "feed_forward_norm.weight", out.y, rows);
  return {.x = feed_forward(tape, layer, middle, x, rows, loan), .memory = out.after};
}

PlannedModel::BlockOutput PlannedModel::feedback_block(SizeTape* tape, int layer, const Sized& x,
                                                       const HeadLayout& layout,
                                                       const SizedState& memory,
                                                       const PlannedLender::Loan& loan) const {
  const std::int64_t rows = feedback_.rows(layout), width = model_.d_model;
  const LayerPart part = parts_of(tape, layer);
  const Sized normed = block_norm(tape, layer, "attention_norm.weight", x, rows);
  Sized attended;
  SizedState after;
  {
    const PlannedFeedback::Output out =
        feedback_.attend(tape, part, normed, x, layout, memory, rows_of(tape, layer, loan), true);
    attended = ops_.linear(tape, out.heads, part({"attention.output.weight"}), rows,
                           layout.query_width(), width, Split::kNone, x);
    after = out.after;
  }
  const Sized middle = block_norm(tape, layer, "feed_forward_norm.weight", attended, rows);
  return {.x = feed_forward(tape, layer, middle, attended, rows, loan), .memory = after};
}

PlannedFeedback::BlockRows PlannedModel::rows_of(SizeTape* tape, int layer,
                                                 const PlannedLender::Loan& loan) const {
  return {.normed =
              [=, this](const Sized& x, std::int64_t rows) {
                return block_norm(tape, layer, "attention_norm.weight", x, rows);
              },
          .feed_forward =
              [=, this](const Sized& y, std::int64_t rows) {
                return feed_forward(tape, layer,
                                    block_norm(tape, layer, "feed_forward_norm.weight", y, rows), y,
                                    rows, loan);
              }};
}

PlannedModel::BlockOutput PlannedModel::recomputed_block(SizeTape* tape, int layer, const Sized& x,
                                                         const HeadLayout& layout,
                                                         const SizedState& memory) const {
  if (!tape) return block(nullptr, layer, x, layout, memory);
  std::vector<Sized> inputs = with_state(x, memory);
  std::vector<Sized> values;
  for (const Sized& input : inputs) values.push_back(input.unwatched());
  inputs.push_back(tape->watch({}));  // it is recorded whatever comes in
  BlockOutput out = block(nullptr, layer, values[0], layout, state_of(values));
  const auto repeat = [=, this](const std::vector<Trace::Block>& doutputs,
                                const SizeTape::Gradients& gradients) {
    SizeTape again(ops_.trace());
    std::vector<Sized> watched = values;
    for (std::size_t i = 0; i < values.size(); ++i)
      if (const auto target = gradients.of(i)) watched[i] = again.watch(values[i], target);
    const BlockOutput repeated = block(&again, layer, watched[0], layout, state_of(watched));
    const std::vector<Sized> outputs = with_state(repeated.x, repeated.memory);
    for (std::size_t i = 0; i < doutputs.size(); ++i)
      if (doutputs[i] && outputs[i].tape) again.seed(outputs[i]);
    again.backward();
  };
  std::vector<Sized*> outputs{&out.x};
  for (const auto part : kSizedParts) outputs.push_back(&(out.memory.*part));
  tape->push(outputs, inputs, repeat);
  return out;
}

PlannedModel::Output PlannedModel::forward(SizeTape* tape, const HeadLayout& layout,
                                           const Sized& tokens, const SizedMemories& memory,
                                           bool recompute_blocks) const {
  const Sized x = embed(tape, layout, tokens);
  if (model_.has_memory_tokens())
    return with_memory_tokens(tape, x, layout, memory[0], recompute_blocks);
  const Streamed out = through_blocks(tape, x, layout, memory, recompute_blocks);
  const Sized last =
      model_.feedback_tokens() > 0 ? feedback_.without_prompt(tape, out.x, layout) : out.x;
  return {.hidden = final_norm(tape, last, layout.rows()), .memory = out.memory};
}

PlannedModel::Streamed PlannedModel::through_blocks(SizeTape* tape, const Sized& x,
                                                    const HeadLayout& layout,
                                                    const SizedMemories& memory,
                                                    bool recompute_blocks) const {
  Streamed stream{.x = x, .memory = {}};
  for (int layer = 0; layer < model_.layers; ++layer) {
    const SizedState& given = memory[layer];
    const bool records =
        block_trains_[layer] || stream.x.tape || given.matrix.tape || given.normalizer.tape;
    SizeTape* const own = records ? tape : nullptr;
    const BlockOutput out = recompute_blocks ? recomputed_block(own, layer, stream.x, layout, given)
                                             : block(own, layer, stream.x, layout, given);
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
    const Sized learned = parameter(tape, {"memory_tokens.weight"});
    const Sized before = ops_.rows_chosen(tape, vectors, read, accumulates ? Sized{} : learned);
    const Sized last =
        accumulates ? ops_.rows_chosen(tape, ops_.make(written), written, learned) : before;
    Sized rows = ops_.join_columns(tape, {before, ops_.take_columns(tape, x, tokens), last}, batch);
    if (accumulates) rows = ops_.rows_chosen(tape, rows, positions);
    const SizedMemories none(static_cast<std::size_t>(model_.layers));
    Sized out =
        final_norm(tape, through_blocks(tape, rows, alone, none, recompute_blocks).x, alone.rows());
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
  const int last = model_.layers - 1;
  if (model_.normalises_over_time()) {
    after.push_back(over_time_.remember(parts_of(nullptr, last), x, layout, memory.back()));
    return after;
  }
  if (model_.feedback_tokens() > 0) {
    const Sized normed =
        block_norm(nullptr, last, "attention_norm.weight", x, feedback_.rows(layout));
    after.push_back(feedback_
                        .attend(nullptr, parts_of(nullptr, last), normed, x, layout, memory.back(),
                                rows_of(nullptr, last, loan), false)
                        .after);
    return after;
  }
  const Sized normed = block_norm(nullptr, last, "attention_norm.weight", x, layout.rows());
  if (model_.has_relative_positions()) {
    after.push_back(cache_.remember(last, parts_of(nullptr, last), normed, layout, memory.back()));
    return after;
  }
  const Sized qkv = project(nullptr, last, normed, layout, loan);
  if (memory_.rule() == MemoryRule::kNone) {
    after.emplace_back();
  } else {
    const SizedState sums = ops_.memory_sums(layout);
    after.push_back(memory_.accumulate(nullptr, qkv, sums, layout, memory.back()).after);
  }
  return after;
}

PlannedOps::Loss PlannedModel::loss(SizeTape* tape, const Sized& hidden, std::int64_t rows) const {
  const Sized weight = model_.tied ? table(tape) : parameter(tape, {"head.weight"});
  PlannedLender::Loan loan;
  if (lender_) {
    const int head = model_.tied ? 0 : part_of(model_.layers);
    const int next = tape ? part_of(model_.layers - 1) : PlannedLender::kNone;
    loan = lender_->borrow(tape, head, next, model_.tied ? &table_gradients_ : nullptr);
    lender_->ask(loan);
  }
  return ops_.cross_entropy(tape, hidden, weight, rows, model_.d_model, model_.vocabulary);
}

}  // namespace infini
