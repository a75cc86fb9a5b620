// Reading and writing text with the memory carried, one sequence at a time.
#pragma once

#include "model/transformer.h"

namespace infini {

// Where a sequence stands: the memory of all full segments, and the projections of the segment that
// is not full yet. What a decoder computes equals the forward pass over the whole sequence, token
// for token: local attention restarts in each segment, and the memory is written when a segment
// fills.
class Decoder {
 public:
  explicit Decoder(const InfiniTransformer& model);
  Decoder(const InfiniTransformer& model, Memories memory);  // starts at the border of a segment
  Decoder(const Decoder& other);  // goes on from the same place by itself
  Decoder& operator=(const Decoder&) = delete;

  // Takes the next tokens of the sequence (one or more), full segments through the model's forward
  // pass and the rest through the window. Returns the normalised hidden state of the last one [1,
  // D].
  Tensor read(std::span<const std::int32_t> tokens);
  // The logits of the token that follows: model.logits(read(tokens)).
  std::vector<float> next_logits(std::span<const std::int32_t> tokens);

  std::int64_t position() const { return position_; }  // tokens read so far
  const Memories& memory() const { return memory_; }   // of the full segments

 private:
  struct Window {
    Tensor qkv;      // [T, (H + 2 Hk) K] of the open segment
    Tensor rotated;  // [T, (H + Hk) K]
  };

  Tensor read_segments(std::span<const std::int32_t> tokens);
  Tensor read_window(std::span<const std::int32_t> tokens);
  void close_segment();
  HeadLayout layout(std::int64_t segments, std::int64_t tokens) const;

  const InfiniTransformer& model_;
  Memories memory_;
  std::vector<Window> windows_;  // one per layer
  std::int64_t filled_ = 0;      // tokens in the open segment
  std::int64_t position_ = 0;
};

}  // namespace infini
