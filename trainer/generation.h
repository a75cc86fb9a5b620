// Continuations of texts: token after token is drawn until one stops the text or there are enough.
#pragma once

#include <functional>

#include "trainer/sampling.h"
#include "trainer/sequence.h"

namespace infini {

struct GenerationOptions {
  SamplingOptions sampling{};
  RepetitionOptions repetition{};
  std::int64_t max_tokens = 200;
  std::vector<std::int32_t> stop_tokens{};  // each ends a text and is no part of it
  std::uint64_t seed = 1;
  std::int64_t rows_at_once = 16;  // continuations that advance together, each with a state
};

struct Continuation {
  enum class End { kLength, kStopToken, kCaller };

  std::vector<std::int32_t> tokens;
  End end = End::kLength;
};

// Hears each token of continuation i as it is drawn; where it returns false, the continuation ends
// with this token.
using OnToken = std::function<bool(std::size_t i, std::int32_t token)>;

// Draws a continuation, with which the sequence goes on: it stands after the last token and before
// a stop token, where it has ended. Nothing follows in a sequence that has ended.
//
// The token at place p of a sequence is drawn with number p of stream (seed, `stream`), so that
// stopping here and there changes nothing.
Continuation go_on(Sequence& sequence, const GenerationOptions& options, const OnToken& = {},
                   std::uint64_t stream = 0);

// One of several continuations. Of one sequence, each needs a stream of its own.
struct ContinuationOf {
  const Sequence* sequence = nullptr;
  std::uint64_t stream = 0;
};
// Continuations that advance together where their sequences permit it, see BatchDecoder; the
// sequences stay where they are. What is drawn does not depend on what is drawn beside it, but for
// the rounding of its logits, and equals what go_on() draws with the same stream.
std::vector<Continuation> continuations(std::span<const ContinuationOf> wanted,
                                        const GenerationOptions& options, const OnToken& = {});

// `samples` continuations of one sequence, with streams 0, 1, ...; it is read once.
std::vector<Continuation> sample(const Sequence& sequence, int samples,
                                 const GenerationOptions& options, const OnToken& = {});

// `samples` continuations of each prompt, which may have any lengths but 0.
std::vector<std::vector<Continuation>> continue_prompts(
    const InfiniTransformer& model, std::span<const std::vector<std::int32_t>> prompts, int samples,
    const GenerationOptions& options);

}  // namespace infini
