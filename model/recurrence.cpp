#include "model/recurrence.h"

namespace infini {
namespace {

// Columns [begin, begin + count) of a [B, T] table as one flat tensor [B count]; empty stays empty.
template <class T>
Tensor columns(const Tensor& table, std::int64_t begin, std::int64_t count, Device device) {
  if (!table) return {};
  check<DeviceError>(device == Device::kCpu, "rows: this build has no kernels for ", device);
  const auto [rows, width] = table.dims<2>();
  const Tensor part = Tensor::empty({rows * count}, table.dtype());
  for (std::int64_t r = 0; r < rows; ++r)
    std::copy_n(table.data<T>() + r * width + begin, count, part.data<T>() + r * count);
  return part;
}

class Row {
 public:
  Row(const Rows& rows, const ModelConfig& config, std::int64_t horizon, Device device)
      : rows_(rows), config_(config), horizon_(horizon), device_(device) {}

  Span span(const Piece& piece) const {
    Span span;
    span.layout = {.batch = rows_.batch(),
                   .segments = piece.count,
                   .tokens = piece.tokens,
                   .heads = config_.heads,
                   .kv_heads = config_.key_value_heads(),
                   .head_width = config_.head_width()};
    span.tokens =
        columns<std::int32_t>(rows_.tokens, first_token(piece), piece_tokens(piece), device_);
    span.keep = columns<std::uint8_t>(rows_.keep, first_token(piece), piece_tokens(piece), device_);
    if (rows_.resets)
      span.borders.resets = columns<std::uint8_t>(rows_.resets, piece.first, piece.count, device_)
                                .reshape({rows_.batch(), piece.count});
    if (horizon_ > 0)
      for (std::int64_t s = piece.first; s < piece.first + piece.count; ++s)
        span.borders.detach.push_back(s > 0 && s % horizon_ == 0);
    return span;
  }
  Tensor targets(const Piece& piece) const {
    return columns<std::int32_t>(rows_.targets, first_token(piece), piece_tokens(piece), device_);
  }
  Tensor weights(const Piece& piece) const {
    return columns<float>(rows_.weights, first_token(piece), piece_tokens(piece), device_);
  }
  // Puts the losses of a piece [B count] where they belong in a row's [B, T].
  void place(const Piece& piece, const Tensor& part, const Tensor& whole) const {
    const std::int64_t count = piece_tokens(piece), width = rows_.row_tokens();
    dispatch_accumulator(part.dtype(), [&]<class A>() {
      for (std::int64_t r = 0; r < rows_.batch(); ++r)
        std::copy_n(part.data<A>() + r * count, count,
                    whole.data<A>() + r * width + first_token(piece));
    });
  }

 private:
  std::int64_t first_token(const Piece& piece) const { return piece.first * rows_.segment_tokens; }
  static std::int64_t piece_tokens(const Piece& piece) { return piece.count * piece.tokens; }

  const Rows& rows_;
  const ModelConfig& config_;
  std::int64_t horizon_;
  Device device_;
};

void check_rows(const Rows& rows, const ModelConfig& config) {
  check(rows.segment_tokens >= 1 && rows.segment_tokens <= config.segment_tokens,
        "rows have segments of ", rows.segment_tokens, " tokens, the model is made for ",
        config.segment_tokens);
  const Shape& tokens = rows.tokens.shape();
  check(tokens.rank() == 2 && tokens.size() > 0, "rows have no tokens: ", tokens);
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

Memories watch(Tape& tape, const Memories& memory) {
  Memories watched = memory;
  for (MemoryState& state : watched) {
    if (state.matrix) state.matrix = tape.watch(state.matrix);
    if (state.normalizer) state.normalizer = tape.watch(state.normalizer);
  }
  return watched;
}

Memories gradients(const Tape& tape, const Memories& watched) {
  Memories result;
  for (const MemoryState& state : watched)
    result.push_back({.matrix = state.matrix ? tape.gradient(state.matrix) : Tensor{},
                      .normalizer = state.normalizer ? tape.gradient(state.normalizer) : Tensor{}});
  return result;
}

// Makes a loss a root of the backward pass.
void seed_root(Tape& tape, const Tensor& loss) {
  tape.seed(loss, Tensor::of(std::vector<double>{1}, {}).to(loss.dtype()));
}

void seed(Tape& tape, const Memories& memory, const Memories& dmemory) {
  const auto each = [&](const Tensor& state, const Tensor& gradient) {
    if (state.tape() && gradient) tape.seed(state, gradient);
  };
  for (std::size_t layer = 0; layer < dmemory.size(); ++layer) {
    each(memory[layer].matrix, dmemory[layer].matrix);
    each(memory[layer].normalizer, dmemory[layer].normalizer);
  }
}

Memories unwatched(const Memories& memory) {
  Memories result;
  for (const MemoryState& state : memory)
    result.push_back(
        {.matrix = state.matrix.unwatched(), .normalizer = state.normalizer.unwatched()});
  return result;
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
                             Memories* dmemory) const {
  check_rows(rows, model_.config());
  return options_.schedule == RowSchedule::kParallel
             ? train_parallel(rows, memory, scale, key, dmemory)
             : train_streaming(rows, memory, scale, key, dmemory);
}

RowsResult Recurrence::train_parallel(const Rows& rows, const Memories& memory, double scale,
                                      RandomKey key, Memories* dmemory) const {
  const Row row(rows, model_.config(), options_.gradient_horizon, model_.device());
  Tape tape;
  const Pass pass{.tape = &tape, .training = true, .key = key};
  RowsResult result{
      .nll = Tensor::empty(rows.tokens.shape(), accumulator_of(model_.parameters().compute())),
      .memory = {}};
  const Memories initial = dmemory ? watch(tape, memory) : memory;
  Memories state = initial;
  for (const Piece& piece : cut_row(rows.row_tokens(), rows.segment_tokens, rows.segments())) {
    const InfiniTransformer::Output out =
        model_(pass, row.span(piece), state, options_.recompute_blocks);
    const CrossEntropy loss =
        model_.loss(pass, out.hidden, row.targets(piece), row.weights(piece), scale);
    row.place(piece, loss.nll, result.nll);
    result.loss += loss.loss.item();
    seed_root(tape, loss.loss);
    state = out.memory;
  }
  tape.backward();
  if (dmemory) *dmemory = gradients(tape, initial);
  result.memory = unwatched(state);
  return result;
}

RowsResult Recurrence::train_streaming(const Rows& rows, const Memories& memory, double scale,
                                       RandomKey key, Memories* dmemory) const {
  const Row row(rows, model_.config(), options_.gradient_horizon, model_.device());
  const std::vector<Piece> pieces =
      cut_row(rows.row_tokens(), rows.segment_tokens, options_.segments_per_tape);
  RowsResult result{
      .nll = Tensor::empty(rows.tokens.shape(), accumulator_of(model_.parameters().compute())),
      .memory = {}};

  std::vector<Memories> borders{memory};
  for (std::size_t i = 0; i + 1 < pieces.size(); ++i)
    borders.push_back(model_(Pass{.tape = nullptr, .training = true, .key = key},
                             row.span(pieces[i]), borders.back())
                          .memory);

  Memories passed;  // the gradient of the memory after the piece at hand
  for (std::size_t i = pieces.size(); i-- > 0;) {
    Tape tape;
    const Pass pass{.tape = &tape, .training = true, .key = key};
    const bool asked =
        i > 0 || dmemory;  // whether anyone wants the gradient of the memory before this piece
    const Memories before = asked ? watch(tape, borders[i]) : borders[i];
    const InfiniTransformer::Output out =
        model_(pass, row.span(pieces[i]), before, options_.recompute_blocks);
    const CrossEntropy loss =
        model_.loss(pass, out.hidden, row.targets(pieces[i]), row.weights(pieces[i]), scale);
    row.place(pieces[i], loss.nll, result.nll);
    result.loss += loss.loss.item();
    if (i + 1 == pieces.size()) result.memory = unwatched(out.memory);
    seed_root(tape, loss.loss);
    seed(tape, out.memory, passed);
    tape.backward();
    if (asked) passed = gradients(tape, before);
    borders.pop_back();
  }
  if (dmemory) *dmemory = passed;
  return result;
}

Memories Recurrence::forward(const Rows& rows, const Memories& memory,
                             std::int64_t segments_at_once, const Visit& visit) const {
  check_rows(rows, model_.config());
  const Row row(rows, model_.config(), 0, model_.device());
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
  const Row row(rows, model_.config(), 0, model_.device());
  RowsResult result{
      .nll = Tensor::empty(rows.tokens.shape(), accumulator_of(model_.parameters().compute())),
      .memory = {}};
  result.memory =
      forward(rows, memory, segments_at_once, [&](const Piece& piece, const Tensor& hidden) {
        const CrossEntropy loss =
            model_.loss(Pass{}, hidden, row.targets(piece), row.weights(piece), 1);
        row.place(piece, loss.nll, result.nll);
        result.loss += loss.loss.item();
      });
  return result;
}

}  // namespace infini
