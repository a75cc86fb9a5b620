// Several sequences that go on together, one token of each at a time, as rows of one batch: a
// product reads its weights once for all of them, so that tokens per second grow with the rows.
#pragma once

#include "model/decoder.h"

namespace infini {

// Goes op by op on any device; a row equals its decoder going on by itself to rounding. Each row
// holds a memory and a window of its own.
class BatchDecoder {
 public:
  // Whether two decoders can be rows of one batch: of architecture infini always; of the others
  // where both stand at the same place of a segment and both or neither have a memory, as
  // copies of one decoder do.
  static bool can_join(const Decoder& a, const Decoder& b);

  // Goes on from where the decoders stand, which stay there themselves; the same one may be given
  // for several rows. Throws where they are of several models or cannot join.
  explicit BatchDecoder(std::span<const Decoder* const> rows);

  std::int64_t rows() const { return static_cast<std::int64_t>(filled_.size()); }  // B
  // Takes the next token of each row and returns the logits of those that follow [B, N].
  Tensor next_logits(std::span<const std::int32_t> tokens);
  // Goes on with these of the rows alone: row i is the one that was rows[i], which is i itself or
  // one whose own place goes, so that only what fills gaps is moved.
  void keep(std::span<const std::int64_t> rows);

 private:
  // Neighbouring rows that stand at the same place of their segments.
  struct Run {
    std::int64_t first = 0, count = 0;
    std::int64_t filled = 0;
  };
  std::vector<Run> runs() const;
  Tensor read_windows(std::span<const std::int32_t> tokens);  // -> hidden [B, D]
  // The local attention of the newest token of each row, which its window takes up.
  Tensor attend(std::size_t layer, const InfiniAttention& attention, const Tensor& qkv);
  Tensor read_open_segments(std::span<const std::int32_t> tokens);  // -> hidden [B, D]
  void close_segments();
  HeadLayout layout(std::int64_t batch, std::int64_t tokens) const;
  void copy_window(std::int64_t row, const DecoderState::Window& from, std::size_t layer);

  const InfiniTransformer& model_;
  // Of rows that have left, too, behind the others.
  Memories memory_;                              // [B, ...]
  std::vector<DecoderState::Window> windows_;    // [B, T, ...]
  std::vector<std::vector<std::int32_t>> open_;  // by row, where there are no windows
  std::vector<std::int64_t> filled_;             // by row
};

}  // namespace infini
