// How a row of many segments runs through a model, and how its gradient comes back: two schedules,
// one gradient.
//
// parallel: one tape for the whole row; each layer takes all segments at once. Fastest while
// activations fit.
//
// streaming: `segments_per_tape` segments at a time. A first sweep keeps the memory at the borders
// of these pieces; then each piece is computed again with a tape, newest first, and hands the
// gradient of its memory to the piece before it. What is held does not grow with the row, but for
// the border memories.
//
// A ragged last segment is a piece of its own, so that every piece has segments of one length.
#pragma once

#include "model/transformer.h"

namespace infini {

enum class RowSchedule { kParallel, kStreaming };
constexpr std::array<std::pair<std::string_view, RowSchedule>, 2> enum_names(RowSchedule) {
  return {{{"parallel", RowSchedule::kParallel}, {"streaming", RowSchedule::kStreaming}}};
}

// On the CPU, or on the device of the model. B rows of T tokens cut into S segments of
// `segment_tokens`, the last one possibly shorter.
struct Rows {
  std::int64_t segment_tokens = 0;
  Tensor tokens;   // [B, T] int32
  Tensor targets;  // [B, T] int32, -1 is not scored
  Tensor weights;  // [B, T] fp32, or empty: all 1
  Tensor resets;   // [B, S] u8, 1: the memory is emptied before the segment; or empty
  Tensor keep;     // [B, T] u8, 0: padding; or empty

  // Where these are not all segments of the rows, but those of group exchange->index() of as many
  // in each: whole segments, and the memory before and after is that of all groups.
  const SegmentExchange* exchange = nullptr;
  Tensor group_resets{};  // [B, P] u8, 1: some segment of the group empties the memory; or empty

  std::int64_t batch() const { return tokens.shape()[0]; }
  std::int64_t row_tokens() const { return tokens.shape()[1]; }
  std::int64_t segments() const { return (row_tokens() + segment_tokens - 1) / segment_tokens; }
};

struct RecurrenceOptions {
  RowSchedule schedule = RowSchedule::kParallel;
  std::int64_t segments_per_tape = 1;  // of the streaming schedule
  std::int64_t gradient_horizon =
      0;  // gradients stop at segment borders that are multiples of it; 0: nowhere
  bool recompute_blocks = false;
  std::int64_t host_borders =
      0;  // of the streaming schedule: every n-th border memory waits in host memory; 0: none
  // The parallel schedule takes so many segments at a time, newest last, and adds what they do to
  // the memory as ranks would that had one such group each: the same sums to the last bit. 0: all.
  std::int64_t group_segments = 0;
};

// Segments [first, first + count) of a row, each of `tokens` tokens.
struct Piece {
  std::int64_t first = 0, count = 0, tokens = 0;
};
// The row cut into pieces of at most `most` segments, the ragged last segment by itself.
std::vector<Piece> cut_row(std::int64_t row_tokens, std::int64_t segment_tokens, std::int64_t most);

// On the device of the model, in the accumulator type.
struct RowsResult {
  Tensor loss;      // scalar: scale * sum of weights * nll
  Tensor nll;       // [B, T]
  Memories memory;  // after the rows
};

class Recurrence {
 public:
  Recurrence(const InfiniTransformer& model, const RecurrenceOptions& options)
      : model_(model), options_(options) {}

  // Adds the gradient of  scale * sum_{b,t} weights nll  to the gradients of the parameters, and
  // scale times that of the losses which parts of the model have for parameters of their own (see
  // Pass::auxiliary_scale), which are in no result.
  // `memory` is the state before the rows; where dmemory is given, it receives the gradient of that
  // state, and where `final` is given, it is told as gradients of parameters become final.
  // After the backward pass of each tape, newest segments first, `done` sees its losses.
  using TapeDone = std::function<void(const CrossEntropy& losses)>;
  RowsResult train(const Rows& rows, const Memories& memory, double scale, RandomKey key,
                   Memories* dmemory = nullptr, const GradientsFinal* final = nullptr,
                   const TapeDone& done = {}) const;

  // Runs the rows without gradients, `segments_at_once` segments at a time, and shows the
  // normalised hidden states of each piece: row b P + t of `hidden` [B P, D] is token `piece.first
  // * segment_tokens + t` of row b, P tokens to a piece. Returns the memory after the rows.
  using Visit = std::function<void(const Piece& piece, const Tensor& hidden)>;
  Memories forward(const Rows& rows, const Memories& memory, std::int64_t segments_at_once,
                   const Visit& visit) const;

  // The losses of train() without gradients, with scale 1.
  RowsResult evaluate(const Rows& rows, const Memories& memory,
                      std::int64_t segments_at_once) const;

 private:
  RowsResult train_parallel(const Rows& rows, const Memories& memory, double scale, RandomKey key,
                            Memories* dmemory, const GradientsFinal* final) const;
  RowsResult train_streaming(const Rows& rows, const Memories& memory, double scale, RandomKey key,
                             Memories* dmemory, const GradientsFinal* final,
                             const TapeDone& done) const;

  const InfiniTransformer& model_;
  RecurrenceOptions options_;
};

}  // namespace infini
