// Reading and writing text with the memory carried, one sequence at a time.
#pragma once

#include <optional>

#include "model/transformer.h"
#include "tensor/ops/decode.h"

namespace infini {

// How a GPU takes single tokens: op by op, or all layers in one kernel where there is one for the
// model (tensor/ops/decode.h).
enum class SingleTokens { kOpByOp, kOneKernel };

// Where a sequence stands: the memory of all full segments, and the projections of the segment that
// is not full yet, or, of architectures other than infini, its tokens, which are read anew with
// each that comes. Of one size however long the sequence is.
struct DecoderState {
  struct Window {
    Tensor qkv;      // [T, (H + 2 Hk) K] of the open segment
    Tensor rotated;  // [T, (H + Hk) K]
  };
  Memories memory{};                 // of the full segments, B = 1
  std::vector<Window> windows{};     // one per layer; empty where the architecture is not infini
  std::vector<std::int32_t> open{};  // the tokens of the open segment, where it is not
  std::int64_t filled = 0;           // tokens in the open segment
  std::int64_t position = 0;         // tokens read so far
};

// What a decoder computes equals the forward pass over the whole sequence, token for token: local
// attention restarts in each segment, and the memory is written when a segment fills.
class Decoder {
 public:
  // How many full segments read() takes through the forward pass together.
  static constexpr std::int64_t kSegmentsAtOnce = 4;

  explicit Decoder(const InfiniTransformer& model, SingleTokens how = SingleTokens::kOneKernel);
  // Starts at the border of a segment.
  Decoder(const InfiniTransformer& model, Memories memory,
          SingleTokens how = SingleTokens::kOneKernel);
  // Goes on from where another decoder of the model stood, on any device. Throws where the state is
  // not one of such a model.
  Decoder(const InfiniTransformer& model, const DecoderState& state,
          SingleTokens how = SingleTokens::kOneKernel);
  Decoder(const Decoder& other);  // goes on from the same place by itself
  Decoder& operator=(const Decoder&) = delete;

  // Takes the next tokens of the sequence (one or more), full segments through the model's forward
  // pass and the rest through the window. Returns the normalised hidden state of the last one [1,
  // D].
  Tensor read(std::span<const std::int32_t> tokens);
  // The logits of the token that follows: model.logits(read(tokens)).
  std::vector<float> next_logits(std::span<const std::int32_t> tokens);
  // Takes the next tokens, then `count` - 1 times the most likely one (the first among equals);
  // returns these and the last one, which was not taken.
  std::vector<std::int32_t> generate_greedy(std::span<const std::int32_t> tokens,
                                            std::int64_t count);

  const InfiniTransformer& model() const { return model_; }
  std::int64_t position() const { return state_.position; }  // tokens read so far
  std::int64_t filled() const { return state_.filled; }      // of these, in the open segment
  const Memories& memory() const { return state_.memory; }   // of the full segments
  // The windows are the decoder's own: they change as it goes on.
  const DecoderState& state() const { return state_; }
  // Whether the device takes single tokens by one kernel.
  bool has_kernel() const { return plan_.has_value(); }

 private:
  struct Output {
    Tensor hidden;  // [1, D]
    Tensor logits;  // [1, N]; may be empty
  };

  // Goes on by tokens, of whose logits only those after the last may be wanted.
  Output take(std::span<const std::int32_t> tokens, bool with_logits);
  Tensor read_segments(std::span<const std::int32_t> tokens);
  Tensor read_window(std::span<const std::int32_t> tokens);
  // The same by the model's forward pass over all of the open segment.
  Tensor read_open_segment(std::span<const std::int32_t> tokens);
  // One token by a kernel of its own. It may come from a choice and lead to one, see decode.h.
  Output step(std::int32_t token, bool with_logits, const Tensor& from = {},
              const Tensor& choice = {});
  void close_segment();
  HeadLayout layout(std::int64_t segments, std::int64_t tokens) const;
  // What that kernel reads, memories as they are now.
  DecodeModel decode_model() const;
  bool reads_memory() const;

  const InfiniTransformer& model_;
  DecoderState state_;
  Tensor rotary_table_;             // on a GPU only, as the plan
  std::optional<DecodePlan> plan_;  // empty where single tokens are read op by op
  bool plan_is_old_ = false;        // a memory was replaced since
};

}  // namespace infini
