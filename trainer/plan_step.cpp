#include "trainer/plan_step.h"

#include <bit>

#include "model/feedback_attention.h"
#include "optim/optimizer.h"
#include "trainer/plan_model.h"

namespace infini {
namespace {

constexpr std::int64_t kProductWorkspaceBytes = 64 << 20;  // tensor/ops/product_cublaslt.cpp

class StepWalk {
 public:
  StepWalk(const PlannedRank& rank, Device device)
      : rank_(rank),
        compute_(dtype_of_compute(rank.config.train.compute)),
        ops_(trace_, {.device = device,
                      .element_bytes = bytes_of(compute_),
                      .full_bytes = bytes_of(accumulator_of(compute_)),
                      .tensors = rank.axes.tensors}),
        row_tokens_(rank.row_tokens / rank.axes.segments),
        segments_((row_tokens_ + rank.model.segment_tokens - 1) / rank.model.segment_tokens),
        options_(options()),
        lender_(trace_, {.parts = rank.parts,
                         .divides_values = rank.divides(Shard::kParameters),
                         .element_bytes = ops_.options().element_bytes,
                         .full_bytes = full()}),
        model_(ops_, rank.model, rank.frozen,
               rank.axes.segments > 1        ? rank.axes.segments
               : options_.group_segments > 0 ? 1
                                             : 0,
               rank.divides(Shard::kGradients) ? &lender_ : nullptr) {}

  PlannedStep walk() {
    hold_parameters();
    if (rank_.config.data.source == DataKind::kStore &&
        rank_.config.data.sampler == Sampler::kLanes) {
      hold_states(rank_.rows());  // before the step
      hold_states(rank_.rows());  // after it
    }
    const int row_leaves = rank_.config.parallel.row_leaves / rank_.axes.data;
    const int parts = row_leaves > 0 ? row_leaves : rank_.config.train.accumulate;
    leaves_ = row_leaves * std::max(1, segment_leaves());
    const std::int64_t part_rows = rank_.rows() / parts;
    for (int part = 0; part < parts; ++part) {
      if (options_.schedule == RowSchedule::kStreaming || options_.group_segments > 0)
        train_streaming(part_rows);
      else
        train_parallel(part_rows);
      if (row_leaves > 0 && segment_leaves() == 0) add_leaf();
    }
    lender_.finish();
    update();
    step_.peak = trace_.peak();
    step_.peak_bytes = trace_.peak_bytes();
    step_.reserved_bytes = trace_.reserved_bytes();
    step_.work = trace_.work;
    held_.clear();
    return step_;
  }

 private:
  RecurrenceOptions options() const {
    RecurrenceOptions options = rank_.config.train.recurrence();
    if (segment_leaves() > 0) options.group_segments = segments_ / segment_leaves();
    return options;
  }
  int segment_leaves() const {
    return rank_.axes.segments == 1 ? rank_.config.parallel.segment_leaves : 0;
  }
  void hold(std::int64_t bytes, MemoryKind kind) {
    if (bytes > 0) held_.push_back(trace_.take(bytes, kind));
  }
  std::int64_t full() const { return ops_.options().full_bytes; }

  // What is divided is held for the parameters that this rank looks after (parameter_shards.h).
  std::int64_t held_values() const {
    return rank_.divides(Shard::kParameters) ? rank_.kept : rank_.parameters;
  }
  std::int64_t held_gradients() const {
    return rank_.divides(Shard::kGradients) ? rank_.owned : rank_.trained;
  }
  void hold_parameters() {
    if (ops_.options().element_bytes != full())
      hold(held_values() * ops_.options().element_bytes, MemoryKind::kValues);
    hold(held_gradients() * full(), MemoryKind::kGradients);
    hold(held_values() * full(), MemoryKind::kMasters);
    const std::vector<ParameterSpec> specs = rank_.specs();
    for (const ParameterSpec* spec : rank_.updated(specs))
      for (const StatePart& part : state_parts(rank_.config.optim, spec->shape, spec->division))
        hold(part.shape.size() * full(), MemoryKind::kOptimizer);
    hold(position_bytes(), MemoryKind::kWorkspace);
    if (ops_.on_gpu()) hold(kProductWorkspaceBytes, MemoryKind::kWorkspace);
  }
  // The table of angles, or of sinusoids.
  std::int64_t position_bytes() const {
    const ModelConfig& model = rank_.model;
    if (model.has_relative_positions())
      return (model.context_tokens() + model.segment_tokens) * model.d_model *
             ops_.options().element_bytes;
    return (feedback_positions(model) + model.positions(model.segment_tokens)) *
           model.head_width() * full();
  }
  // Bytes of the vectors of a model whose memory is its own.
  std::int64_t vector_bytes(std::int64_t rows) const {
    return rows * rank_.model.read_tokens() * rank_.model.d_model * ops_.options().element_bytes;
  }
  void hold_states(std::int64_t rows) {
    hold(vector_bytes(rows), MemoryKind::kBorders);
    for (int layer = 0; layer < rank_.model.layers; ++layer)
      for (const auto& [part, bytes] : model_.carried(layer, rows))
        hold(bytes, MemoryKind::kBorders);
    if (rank_.model.memory == MemoryRule::kNone) return;
    const std::int64_t width = rank_.model.head_width(), heads = rank_.model.key_value_heads();
    for (int layer = 0; layer < rank_.model.layers; ++layer) {
      hold(rows * heads * width * width * full(), MemoryKind::kBorders);
      hold(rows * heads * width * full(), MemoryKind::kBorders);
    }
  }
  // The tree that gradients are added by: after leaf n as many subtrees wait as n has ones in
  // binary (trainer/gradient_tree.h).
  void add_leaf() {
    ++leaf_;
    const int waiting = leaf_ == leaves_ ? 0 : std::popcount(static_cast<unsigned>(leaf_));
    subtrees_.resize(static_cast<std::size_t>(std::max(0, waiting - 1)));
    if (waiting > 0)
      subtrees_.push_back(trace_.take(rank_.trained * full(), MemoryKind::kGradients));
  }

  // The rows of a part on the device, the losses, and what is kept with them.
  std::vector<Trace::Block> rows_and_losses(std::int64_t rows) {
    const std::int64_t tokens = rows * row_tokens_;
    std::vector<Trace::Block> held;
    for (const std::int64_t bytes : {4 * tokens, 4 * tokens, rows * segments_, full(), full()})
      held.push_back(ops_.workspace(bytes));
    held.push_back(ops_.make_full(tokens).block);
    return held;
  }
  HeadLayout layout(std::int64_t rows, const Piece& piece) const {
    return {.batch = rows,
            .segments = piece.count,
            .tokens = piece.tokens,
            .heads = rank_.model.heads,
            .kv_heads = rank_.model.key_value_heads(),
            .head_width = rank_.model.head_width()};
  }
  // The tokens of a piece: a view where there is one row.
  Sized tokens_of(const HeadLayout& layout) {
    return layout.batch == 1 ? Sized{} : Sized{.block = ops_.workspace(4 * layout.rows())};
  }
  SizedMemories nothing() const { return SizedMemories(empty_memories(rank_.model).size()); }

  void backward(SizeTape& tape) {
    const Work before = trace_.work;
    tape.backward();
    ++step_.tapes;
    step_.last_backward_begin = before;
    step_.last_backward_end = trace_.work;
  }

  void train_parallel(std::int64_t rows) {
    const auto held = rows_and_losses(rows);
    SizeTape tape(trace_);
    SizedMemories state = nothing();
    for (const Piece& piece : cut_row(row_tokens_, rank_.model.segment_tokens, segments_)) {
      const HeadLayout at = layout(rows, piece);
      const PlannedModel::Output out =
          model_.forward(&tape, at, tokens_of(at), state, options_.recompute_blocks);
      const PlannedOps::Loss loss = model_.loss(&tape, out.hidden, at.rows());
      if (loss.loss.tape) tape.seed(loss.loss);
      state = out.memory;
    }
    backward(tape);
  }

  void train_streaming(std::int64_t rows) {
    const auto held = rows_and_losses(rows);
    const std::vector<Piece> pieces =
        cut_row(row_tokens_, rank_.model.segment_tokens,
                options_.group_segments > 0 ? options_.group_segments : options_.segments_per_tape);
    std::vector<SizedMemories> borders{nothing()};
    SizedMemories state = nothing();
    for (std::size_t i = 0; i + 1 < pieces.size(); ++i) {
      const HeadLayout at = layout(rows, pieces[i]);
      state = as_border(model_.remember(at, tokens_of(at), state));
      const auto border = static_cast<std::int64_t>(borders.size());
      const bool waits =
          ops_.on_gpu() && options_.host_borders > 0 && border % options_.host_borders == 0;
      borders.push_back(waits ? nothing() : state);
      waits_.push_back(waits);
    }
    state.clear();

    SizedMemories passed, after;
    for (std::size_t i = pieces.size(); i-- > 0;) {
      SizeTape tape(trace_);
      const HeadLayout at = layout(rows, pieces[i]);
      SizedMemories before = borders.back();
      borders.pop_back();
      if (i > 0) {
        if (waits_.back()) before = fetched(rows);
        waits_.pop_back();
        before = each_part(before, [&](const Sized& part) { return tape.watch(part); });
      }
      const PlannedModel::Output out =
          model_.forward(&tape, at, tokens_of(at), before, options_.recompute_blocks);
      const PlannedOps::Loss loss = model_.loss(&tape, out.hidden, at.rows());
      if (i + 1 == pieces.size()) after = out.memory;
      if (loss.loss.tape) tape.seed(loss.loss);
      for (std::size_t layer = 0; layer < passed.size(); ++layer)
        for (const auto part : kSizedParts)
          if (passed[layer].*part && (out.memory[layer].*part).tape)
            tape.seed(out.memory[layer].*part);
      backward(tape);
      if (segment_leaves() > 0) add_leaf();
      if (i == 0) break;
      passed =
          each_part(before, [&](const Sized& part) { return Sized{.block = tape.gradient(part)}; });
    }
  }

  // f(part) of every part that is not empty; the others stay empty.
  template <class Function>
  static SizedMemories each_part(const SizedMemories& memories, const Function& f) {
    SizedMemories result(memories.size());
    for (std::size_t layer = 0; layer < memories.size(); ++layer)
      for (const auto part : kSizedParts)
        if (memories[layer].*part) result[layer].*part = f(memories[layer].*part);
    return result;
  }
  // A state of the first sweep, which is kept as a border.
  SizedMemories as_border(const SizedMemories& made) {
    return each_part(made, [&](const Sized& part) {
      return Sized{.block = trace_.take(part.bytes(), MemoryKind::kBorders)};
    });
  }
  SizedMemories fetched(std::int64_t rows) {
    SizedMemories states = nothing();
    if (const std::int64_t bytes = vector_bytes(rows))
      states[0].vectors = {.block = trace_.take(bytes, MemoryKind::kBorders)};
    for (std::size_t layer = 0; layer < states.size(); ++layer)
      for (const auto& [part, bytes] : model_.carried(static_cast<int>(layer), rows))
        if (bytes > 0) states[layer].*part = {.block = trace_.take(bytes, MemoryKind::kBorders)};
    if (rank_.model.memory == MemoryRule::kNone) return states;
    const std::int64_t width = rank_.model.head_width(), heads = rank_.model.key_value_heads();
    for (SizedState& state : states) {
      state.matrix = ops_.make_full(rows * heads * width * width, MemoryKind::kBorders);
      state.normalizer = ops_.make_full(rows * heads * width, MemoryKind::kBorders);
    }
    return states;
  }

  // Zeroes gradients, measures them, updates what this rank owns.
  void update() {
    Work& work = trace_.work;
    const double mine = static_cast<double>(rank_.owned * full());
    const auto held = static_cast<double>(held_gradients() * full());
    const double measured = rank_.divides(Shard::kOptimizer) ? mine : held;
    work.elementwise_bytes += held + measured;
    const OptimConfig& optim = rank_.config.optim;
    // Numbers read and written for each parameter, as infini bench counts them.
    const double numbers = optim.kind == OptimizerKind::kAdamW ? 7
                           : optim.adafactor.momentum > 0      ? 8
                                                               : 6;
    const bool copies = ops_.options().element_bytes != full();
    work.optimizer_bytes +=
        mine * numbers +
        (copies ? static_cast<double>(rank_.owned * ops_.options().element_bytes) : 0);
    work.kernels += 8;
    if (ops_.on_gpu() || optim.kind == OptimizerKind::kAdamW) return;
    std::int64_t largest = 0;  // its update is made before it is applied
    const std::vector<ParameterSpec> specs = rank_.specs();
    for (const ParameterSpec* spec : rank_.updated(specs))
      largest = std::max(largest, spec->shape.size());
    ops_.workspace(largest * full());
  }

  const PlannedRank& rank_;
  const DType compute_;
  Trace trace_;
  PlannedOps ops_;
  std::int64_t row_tokens_, segments_;  // of this rank's part of a row
  RecurrenceOptions options_;
  PlannedLender lender_;
  PlannedModel model_;
  std::vector<Trace::Block> held_, subtrees_;
  int leaf_ = 0, leaves_ = 0;
  std::vector<bool> waits_;  // which borders are in host memory
  PlannedStep step_;
};

}  // namespace

PlannedStep planned_step(const PlannedRank& rank, Device device) {
  return StepWalk(rank, device).walk();
}

}  // namespace infini
