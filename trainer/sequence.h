// A text that a model reads and goes on with: what it was given, what it wrote, and where it
// stands.
#pragma once

#include <functional>

#include "model/decoder.h"

namespace infini {

// Everything needed to go on exactly as if nothing had come between. What it holds does not grow
// with the text, but for `written`.
struct SequenceState {
  DecoderState decoder{};
  std::vector<std::int32_t> waiting{};  // given or written and not read yet, oldest first
  std::vector<std::int32_t> written{};  // since the text was last given some; none of what ended it
  bool ended = false;                   // nothing follows unless more is given
};

// Tokens that are given are read a few segments at a time, always from the same token on: those of
// a stretch that is not full wait. What is computed so does not depend on the parts in which a text
// was given, to the last bit.
class Sequence {
 public:
  explicit Sequence(const InfiniTransformer& model) : decoder_(model) {}
  // Throws where the state is not one of such a model.
  Sequence(const InfiniTransformer& model, SequenceState state);

  // After each stretch: how many tokens of the sequence are read.
  using OnRead = std::function<void(std::int64_t tokens)>;
  // Goes on with these tokens; what was written before counts as given.
  void give(std::span<const std::int32_t> tokens, const OnRead& on_read = {});
  // Reads all that waits but for the last token, so that the next one can be chosen at once.
  void catch_up(const OnRead& on_read = {});

  // Reads all that waits, of which there must be something, and returns the logits of the token
  // that follows [N]; write() or end() comes next.
  std::vector<float> next_logits();
  void write(std::int32_t token);
  void end() { ended_ = true; }
  // `count` times the most likely token, without a look at them between, where they are cheaper
  // together.
  std::vector<std::int32_t> write_greedily(std::int64_t count);

  // Tokens given and written: the place of the next one.
  std::int64_t tokens() const;
  std::int64_t tokens_read() const { return decoder_.position(); }
  bool ended() const { return ended_; }
  const std::vector<std::int32_t>& waiting() const { return waiting_; }
  const std::vector<std::int32_t>& written() const { return written_; }
  const Decoder& decoder() const { return decoder_; }
  // Shares tensors with the sequence, good until it goes on.
  SequenceState state() const;

 private:
  void read(std::span<const std::int32_t> tokens, const OnRead& on_read);

  Decoder decoder_;
  std::vector<std::int32_t> waiting_, written_;
  bool ended_ = false;
};

}  // namespace infini
