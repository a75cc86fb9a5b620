#include "trainer/sequence.h"

namespace infini {

Sequence::Sequence(const InfiniTransformer& model, SequenceState state)
    : decoder_(model, state.decoder),
      waiting_(std::move(state.waiting)),
      written_(std::move(state.written)),
      ended_(state.ended) {}

SequenceState Sequence::state() const {
  return {.decoder = decoder_.state(), .waiting = waiting_, .written = written_, .ended = ended_};
}

std::int64_t Sequence::tokens() const {
  return decoder_.position() + static_cast<std::int64_t>(waiting_.size());
}

void Sequence::give(std::span<const std::int32_t> tokens, const OnRead& on_read) {
  if (tokens.empty()) return;
  waiting_.insert(waiting_.end(), tokens.begin(), tokens.end());
  written_.clear();
  ended_ = false;
  const std::int64_t segment = decoder_.model().config().segment_tokens;
  std::span<const std::int32_t> rest = waiting_;
  while (true) {
    const auto stretch = static_cast<std::size_t>(
        decoder_.filled() > 0 ? segment - decoder_.filled() : Decoder::kSegmentsAtOnce * segment);
    if (rest.size() <= stretch) break;  // the last token always waits
    read(rest.first(stretch), on_read);
    rest = rest.subspan(stretch);
  }
  waiting_ = {rest.begin(), rest.end()};
}

void Sequence::catch_up(const OnRead& on_read) {
  if (waiting_.size() < 2) return;
  read(std::span(waiting_).first(waiting_.size() - 1), on_read);
  waiting_ = {waiting_.back()};
}

void Sequence::read(std::span<const std::int32_t> tokens, const OnRead& on_read) {
  decoder_.read(tokens);
  if (on_read) on_read(decoder_.position());
}

std::vector<float> Sequence::next_logits() {
  check(!waiting_.empty(), "sequence: nothing waits to be read");
  catch_up();
  std::vector<float> logits = decoder_.next_logits(waiting_);
  waiting_.clear();
  return logits;
}

void Sequence::write(std::int32_t token) {
  waiting_.push_back(token);
  written_.push_back(token);
}

std::vector<std::int32_t> Sequence::write_greedily(std::int64_t count) {
  check(!waiting_.empty() && count > 0, "sequence: nothing waits to be read");
  std::vector<std::int32_t> tokens = decoder_.generate_greedy(waiting_, count);
  waiting_ = {tokens.back()};
  written_.insert(written_.end(), tokens.begin(), tokens.end());
  return tokens;
}

}  // namespace infini
