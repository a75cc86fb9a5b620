#include "model/recurrence.h"

#include "tensor/ops/elementwise.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

// Columns [begin, begin + count) of a [B, T] table as one flat tensor [B count]; empty stays empty.
Tensor columns(const Tensor& table, std::int64_t begin, std::int64_t count) {
  if (!table) return {};
  return columns_of(table, {begin, begin + count}).reshape({table.shape()[0] * count});
}

Tensor on_device(const Tensor& tensor, Device device) {
  return !tensor || tensor.device() == device ? tensor : tensor.to(device);
}

class Row {
 public:
  Row(const Rows& rows, const ModelConfig& config, const RecurrenceOptions& options, Device device)
      : rows_{.segment_tokens = rows.segment_tokens,
              .tokens = on_device(rows.tokens, device),
              .targets = on_device(rows.targets, device),
              .weights = on_device(rows.weights, device),
              .resets = on_device(rows.resets, device),
              .keep = on_device(rows.keep, device),
              .exchange = rows.exchange,
              .group_resets = on_device(rows.group_resets, device)},
        host_resets_(rows.resets),
        config_(config),
        horizon_(options.gradient_horizon),
        in_groups_(options.group_segments > 0) {}

  Span span(const Piece& piece) const {
    Span span;
    span.layout = {.batch = rows_.batch(),
                   .segments = piece.count,
                   .tokens = piece.tokens,
                   .heads = config_.heads,
                   .kv_heads = config_.key_value_heads(),
                   .head_width = config_.head_width()};
    span.tokens = columns(rows_.tokens, first_token(piece), piece_tokens(piece));
    span.keep = columns(rows_.keep, first_token(piece), piece_tokens(piece));
    if (rows_.resets)
      span.borders.resets =
          columns(rows_.resets, piece.first, piece.count).reshape({rows_.batch(), piece.count});
    if (horizon_ > 0)
      for (std::int64_t s = piece.first; s < piece.first + piece.count; ++s)
        span.borders.detach.push_back(stops_before(first_segment() + s));
    if (rows_.exchange || in_groups_) span.groups = groups(piece);
    return span;
  }
  Tensor targets(const Piece& piece) const {
    return columns(rows_.targets, first_token(piece), piece_tokens(piece));
  }
  Tensor weights(const Piece& piece) const {
    return columns(rows_.weights, first_token(piece), piece_tokens(piece));
  }
  // Puts the losses of a piece [B count] where they belong in a row's [B, T].
  void place(const Piece& piece, const Tensor& part, const Tensor& whole) const {
    const std::int64_t count = piece_tokens(piece), width = rows_.row_tokens();
    const std::int64_t element = bytes_of(part.dtype());
    system_memory(part.device())
        .copy({whole.raw() + first_token(piece) * element, width * element},
              {part.raw(), count * element}, count * element, rows_.batch());
  }

 private:
  // Of the row's segment 0, where this is not the first group.
  std::int64_t first_segment() const {
    return rows_.exchange ? rows_.exchange->index() * rows_.segments() : 0;
  }
  bool stops_before(std::int64_t segment) const {
    return horizon_ > 0 && segment > 0 && segment % horizon_ == 0;
  }
  SegmentGroups groups(const Piece& piece) const {
    SegmentGroups groups{.exchange = rows_.exchange, .resets = rows_.group_resets, .detach = {}};
    const int count = rows_.exchange ? rows_.exchange->groups() : 1;
    const std::int64_t first = rows_.exchange ? 0 : piece.first;
    if (horizon_ > 0)
      for (int q = 0; q < count; ++q) {
        bool stops = false;
        for (std::int64_t s = 0; s < piece.count; ++s)
          stops = stops || stops_before(first + q * piece.count + s);
        groups.detach.push_back(stops);
      }
    if (!rows_.exchange && host_resets_)
      groups.resets = on_device(any_in(host_resets_, piece), rows_.tokens.device());
    return groups;
  }
  // [B, S] -> [B, 1]: whether any segment of the piece resets.
  static Tensor any_in(const Tensor& resets, const Piece& piece) {
    const auto [rows, segments] = resets.dims<2>();
    std::vector<std::uint8_t> any(rows);
    for (std::int64_t b = 0; b < rows; ++b)
      for (std::int64_t s = piece.first; s < piece.first + piece.count; ++s)
        any[b] |= resets.data<std::uint8_t>()[b * segments + s];
    return Tensor::of(any, {rows, 1});
  }
  std::int64_t first_token(const Piece& piece) const { return piece.first * rows_.segment_tokens; }
  static std::int64_t piece_tokens(const Piece& piece) { return piece.count * piece.tokens; }

  Rows rows_;  // on the device of the model
  Tensor host_resets_;
  const ModelConfig& config_;
  std::int64_t horizon_;
  bool in_groups_;
};

// On a GPU nobody looks: ids are checked where they come from.
void check_ids(const char* what, const Tensor& ids, std::int32_t least, std::int32_t bound) {
  if (ids.device() != Device::kCpu) return;
  const std::int32_t* const id = ids.data<std::int32_t>();
  for (std::int64_t i = 0; i < ids.size(); ++i)
    check(id[i] >= least && id[i] < bound, "rows: ", what, " hold ", id[i],
          ", the model's vocabulary is ", bound);
}

void check_rows(const Rows& rows, const ModelConfig& config) {
  check(rows.segment_tokens >= 1 && rows.segment_tokens <= config.segment_tokens,
        "rows have segments of ", rows.segment_tokens, " tokens, the model is made for ",
        config.segment_tokens);
  const Shape& tokens = rows.tokens.shape();
  check(tokens.rank() == 2 && tokens.size() > 0, "rows have no tokens: ", tokens);
  check_ids("tokens", rows.tokens, 0, config.vocabulary);
  check_ids("targets", rows.targets, -1, config.vocabulary);
  check(rows.targets.shape() == tokens, "targets are ", rows.targets.shape(), ", tokens are ",
        tokens);
  check(!rows.weights || rows.weights.shape() == tokens, "weights are ", rows.weights.shape(),
        ", tokens are ", tokens);
  check(!rows.keep || rows.keep.shape() == tokens, "keep is ", rows.keep.shape(), ", tokens are ",
        tokens);
  const Shape borders{rows.batch(), rows.segments()};
  check(!rows.resets || rows.resets.shape() == borders, "resets are ", rows.resets.shape(),
        ", expected ", borders);
}

void check_groups(const Rows& rows, const RecurrenceOptions& options) {
  const bool whole = rows.row_tokens() % rows.segment_tokens == 0;
  check(!rows.exchange ||
            (whole && options.schedule == RowSchedule::kParallel && options.group_segments == 0),
        "rows that ranks share are whole segments, taken by the parallel schedule");
  check(options.group_segments == 0 || (whole && rows.segments() % options.group_segments == 0 &&
                                        options.schedule == RowSchedule::kParallel),
        "groups of ", options.group_segments, " segments do not divide rows of ", rows.row_tokens(),
        " tokens in segments of ", rows.segment_tokens);
}

Memories watch(Tape& tape, const Memories& memory) {
  return each_part(memory, [&](const MemoryPart& part, const Tensor& state) {
    return part.has_gradient ? tape.watch(state) : state;
  });
}

Memories gradients(Tape& tape, const Memories& watched) {
  return each_part(watched, [&](const MemoryPart& part, const Tensor& state) {
    return part.has_gradient ? tape.gradient(state) : Tensor{};
  });
}

// Every tensor of the memories on `device`.
Memories on_device(const Memories& memories, Device device) {
  return each_part(
      memories, [&](const MemoryPart&, const Tensor& state) { return on_device(state, device); });
}

// What a schedule adds up piece by piece.
class Losses {
 public:
  Losses(const Row& row, const Shape& tokens, const InfiniTransformer& model)
      : row_(row),
        loss_(Tensor::zeros({}, accumulator_of(model.parameters().compute()), model.device())),
        nll_(Tensor::empty(tokens, loss_.dtype(), model.device())),
        one_(Tensor::of(std::vector<double>{1}, {}).to(loss_.dtype()).to(model.device())) {}

  void add(const Piece& piece, const CrossEntropy& losses) {
    row_.place(piece, losses.nll, nll_);
    add_into({.tensor = loss_, .accumulate = true}, losses.loss);
  }
  // Makes a loss a root of the backward pass, where it depends on anything that trains.
  void seed_root(Tape& tape, const Tensor& loss) const {
    if (loss.tape()) tape.seed(loss, one_);
  }

  RowsResult result(const Memories& memory) const {
    return {.loss = loss_, .nll = nll_, .memory = memory};
  }

 private:
  const Row& row_;
  Tensor loss_, nll_, one_;
};

void seed(Tape& tape, const Memories& memory, const Memories& dmemory) {
  for (std::size_t layer = 0; layer < dmemory.size(); ++layer)
    for (const MemoryPart& part : kMemoryParts) {
      const Tensor &state = memory[layer].*part.tensor, &gradient = dmemory[layer].*part.tensor;
      if (state.tape() && gradient) tape.seed(state, gradient);
    }
}

Memories unwatched(const Memories& memory) {
  return each_part(memory,
                   [](const MemoryPart&, const Tensor& state) { return state.unwatched(); });
}

}  // namespace

std::vector<Piece> cut_row(std::int64_t row_tokens, std::int64_t segment_tokens,
                           std::int64_t most) {
  check(most >= 1, "a piece of a row has at least 1 segment, got ", most);
  std::vector<Piece> pieces;
  const std::int64_t full = row_tokens / segment_tokens;
  for (std::int64_t first = 0; first < full; first += most)
    pieces.push_back(
        {.first = first, .count = std::min(most, full - first), .tokens = segment_tokens});
  if (row_tokens % segment_tokens)
    pieces.push_back({.first = full, .count = 1, .tokens = row_tokens % segment_tokens});
  return pieces;
}

RowsResult Recurrence::train(const Rows& rows, const Memories& memory, double scale, RandomKey key,
                             Memories* dmemory, const GradientsFinal* final,
                             const TapeDone& done) const {
  check_rows(rows, model_.config());
  check_groups(rows, options_);
  if (options_.schedule == RowSchedule::kStreaming || options_.group_segments > 0)
    return train_streaming(rows, memory, scale, key, dmemory, final, done);
  return train_parallel(rows, memory, scale, key, dmemory, final);
}

RowsResult Recurrence::train_parallel(const Rows& rows, const Memories& memory, double scale,
                                      RandomKey key, Memories* dmemory,
                                      const GradientsFinal* final) const {
  const Row row(rows, model_.share(), options_, model_.device());
  Tape tape;
  Pass pass{.tape = &tape,
            .training = true,
            .key = key,
            .gradients_final = final,
            .auxiliary_scale = scale};
  Losses losses(row, rows.tokens.shape(), model_);
  const Memories initial = dmemory ? watch(tape, memory) : memory;
  Memories state = initial;
  for (const Piece& piece : cut_row(rows.row_tokens(), rows.segment_tokens, rows.segments())) {
    const InfiniTransformer::Output out =
        model_(pass, row.span(piece), state, options_.recompute_blocks);
    const CrossEntropy loss =
        model_.loss(pass, out.hidden, row.targets(piece), row.weights(piece), scale);
    losses.add(piece, loss);
    losses.seed_root(tape, loss.loss);
    state = out.memory;
    pass.gradients_final = nullptr;  // the backward pass ends with the first piece
  }
  tape.backward();
  if (dmemory) *dmemory = gradients(tape, initial);
  return losses.result(unwatched(state));
}

RowsResult Recurrence::train_streaming(const Rows& rows, const Memories& memory, double scale,
                                       RandomKey key, Memories* dmemory,
                                       const GradientsFinal* final, const TapeDone& done) const {
  const Row row(rows, model_.share(), options_, model_.device());
  const std::vector<Piece> pieces =
      cut_row(rows.row_tokens(), rows.segment_tokens,
              options_.group_segments > 0 ? options_.group_segments : options_.segments_per_tape);
  Losses losses(row, rows.tokens.shape(), model_);

  // The memory before each piece; every host_borders-th waits in host memory.
  std::vector<Memories> borders{memory};
  Memories state = memory, after;
  for (std::size_t i = 0; i + 1 < pieces.size(); ++i) {
    state = model_.remember(Pass{.tape = nullptr, .training = true, .key = key},
                            row.span(pieces[i]), state);
    const auto border = static_cast<std::int64_t>(borders.size());
    const bool waits = options_.host_borders > 0 && border % options_.host_borders == 0;
    borders.push_back(waits ? on_device(state, Device::kCpu) : state);
  }
  state.clear();

  Memories passed;  // the gradient of the memory after the piece at hand
  for (std::size_t i = pieces.size(); i-- > 0;) {
    Tape tape;
    const Pass pass{.tape = &tape,
                    .training = true,
                    .key = key,
                    .gradients_final = i == 0 ? final : nullptr,
                    .auxiliary_scale = scale};
    const bool asked =
        i > 0 || dmemory;  // whether anyone wants the gradient of the memory before this piece
    const Memories border = on_device(borders.back(), model_.device());
    borders.pop_back();
    const Memories before = asked ? watch(tape, border) : border;
    const InfiniTransformer::Output out =
        model_(pass, row.span(pieces[i]), before, options_.recompute_blocks);
    const CrossEntropy loss =
        model_.loss(pass, out.hidden, row.targets(pieces[i]), row.weights(pieces[i]), scale);
    losses.add(pieces[i], loss);
    if (i + 1 == pieces.size()) after = unwatched(out.memory);
    losses.seed_root(tape, loss.loss);
    seed(tape, out.memory, passed);
    tape.backward();
    if (done) done(loss);
    if (asked) passed = gradients(tape, before);
  }
  if (dmemory) *dmemory = passed;
  return losses.result(after);
}

Memories Recurrence::forward(const Rows& rows, const Memories& memory,
                             std::int64_t segments_at_once, const Visit& visit) const {
  check_rows(rows, model_.config());
  const Row row(rows, model_.share(), {}, model_.device());
  Memories state = memory;
  for (const Piece& piece : cut_row(rows.row_tokens(), rows.segment_tokens, segments_at_once)) {
    const InfiniTransformer::Output out = model_(Pass{}, row.span(piece), state);
    visit(piece, out.hidden);
    state = out.memory;
  }
  return state;
}

RowsResult Recurrence::evaluate(const Rows& rows, const Memories& memory,
                                std::int64_t segments_at_once) const {
  const Row row(rows, model_.share(), {}, model_.device());
  Losses losses(row, rows.tokens.shape(), model_);
  const Memories after =
      forward(rows, memory, segments_at_once, [&](const Piece& piece, const Tensor& hidden) {
        losses.add(piece, model_.loss(Pass{}, hidden, row.targets(piece), row.weights(piece), 1));
      });
  return losses.result(after);
}

}  // namespace infini
