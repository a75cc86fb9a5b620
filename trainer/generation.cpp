#include "trainer/generation.h"

#include <algorithm>
#include <list>
#include <map>

#include "model/batch_decoder.h"

namespace infini {
namespace {

// Drawn at once where the most likely is always taken: enough that nobody waits for the host.
constexpr std::int64_t kGreedyTokens = 16;

constexpr std::uint32_t kSite = 0x67656E;

// A continuation while it comes.
class Draft {
 public:
  Draft(const Sequence& sequence, std::uint64_t stream, std::size_t index,
        const GenerationOptions& options, const OnToken& on_token)
      : options_(options),
        on_token_(on_token),
        key_{.seed = options.seed, .step = stream, .site = kSite},
        index_(index),
        place_(sequence.tokens()),
        written_(sequence.written()) {
    goes_on_ = !sequence.ended() && options.max_tokens > 0;
    if (sequence.ended()) done_.end = Continuation::End::kStopToken;
  }

  bool goes_on() const { return goes_on_; }
  std::int64_t left() const {
    return options_.max_tokens - static_cast<std::int64_t>(done_.tokens.size());
  }
  const Continuation& done() const { return done_; }

  // The next token; the logits are the caller's no longer.
  std::int32_t choose(std::span<float> logits) const {
    penalize_repetition(logits, written_, options_.repetition.penalty);
    forbid_repeated_ngrams(logits, written_, options_.repetition.no_repeat_ngram);
    return sample_token(logits, options_.sampling, key_, static_cast<std::uint64_t>(place_));
  }
  // Takes it up, unless it stops the text.
  void add(std::int32_t token) {
    goes_on_ = false;
    done_.end = Continuation::End::kStopToken;
    if (std::ranges::find(options_.stop_tokens, token) != options_.stop_tokens.end()) return;
    done_.tokens.push_back(token);
    if (options_.repetition.is_on()) written_.push_back(token);
    ++place_;
    done_.end = Continuation::End::kCaller;
    if (on_token_ && !on_token_(index_, token)) return;
    done_.end = Continuation::End::kLength;
    goes_on_ = left() > 0;
  }
  bool has_stopped() const { return done_.end == Continuation::End::kStopToken; }

 private:
  const GenerationOptions& options_;
  const OnToken& on_token_;
  RandomKey key_;
  std::size_t index_;
  std::int64_t place_;
  std::vector<std::int32_t> written_;
  Continuation done_;
  bool goes_on_;
};

void finish(Draft& draft, Sequence& sequence) {
  while (draft.goes_on()) {
    std::vector<float> logits = sequence.next_logits();
    const std::int32_t token = draft.choose(logits);
    draft.add(token);
    if (draft.has_stopped())
      sequence.end();
    else
      sequence.write(token);
  }
}

// The same where nobody asks for the sequence afterwards, which may run past a stop.
void finish_alone(Draft& draft, Sequence& sequence, const GenerationOptions& options) {
  const bool greedy = options.sampling.temperature <= 0 && !options.repetition.is_on();
  if (!greedy || !sequence.decoder().has_kernel()) return finish(draft, sequence);
  while (draft.goes_on())
    for (const std::int32_t token : sequence.write_greedily(std::min(kGreedyTokens, draft.left())))
      if (draft.goes_on()) draft.add(token);
}

struct Row {
  Draft* draft;
  const Sequence* sequence;  // has caught up
  std::int32_t newest;       // waits to be read
};

// The places of the rows that go on: the last ones take those of the rows that do not.
std::vector<std::int64_t> without_gaps(const std::vector<Row>& rows) {
  std::vector<std::int64_t> places;
  std::size_t end = rows.size();
  for (std::size_t i = 0; i < end; ++i) {
    std::size_t place = i;
    if (!rows[i].draft->goes_on()) {
      while (end > i && !rows[end - 1].draft->goes_on()) --end;
      if (end == i) break;
      place = --end;
    }
    places.push_back(static_cast<std::int64_t>(place));
  }
  return places;
}

void finish_together(std::vector<Row> rows) {
  std::vector<const Decoder*> decoders;
  for (const Row& row : rows) decoders.push_back(&row.sequence->decoder());
  BatchDecoder batch(decoders);
  while (true) {
    std::vector<std::int32_t> newest;
    for (const Row& row : rows) newest.push_back(row.newest);
    std::vector<float> logits = batch.next_logits(newest).to_vector<float>();
    const std::size_t vocabulary = logits.size() / rows.size();
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i].newest = rows[i].draft->choose(std::span(logits).subspan(i * vocabulary, vocabulary));
      rows[i].draft->add(rows[i].newest);
    }
    const std::vector<std::int64_t> kept = without_gaps(rows);
    if (kept.empty()) return;
    if (kept.size() == rows.size()) continue;
    batch.keep(kept);
    for (std::size_t i = 0; i < kept.size(); ++i) rows[i] = rows[static_cast<std::size_t>(kept[i])];
    rows.resize(kept.size());
  }
}

// Takes the first row and all that can go on beside it out of `rows`.
std::vector<Row> take_joined(std::vector<Row>& rows) {
  std::vector<Row> joined, others;
  for (const Row& row : rows)
    (BatchDecoder::can_join(rows.front().sequence->decoder(), row.sequence->decoder()) ? joined
                                                                                       : others)
        .push_back(row);
  rows = std::move(others);
  return joined;
}

// Sequences that have caught up, each copied at most once.
class CaughtUp {
 public:
  const Sequence& of(const Sequence& sequence) {
    if (sequence.waiting().size() < 2) return sequence;
    const auto [found, is_new] = copies_.try_emplace(&sequence, sequence);
    if (is_new) found->second.catch_up();
    return found->second;
  }

 private:
  std::map<const Sequence*, Sequence> copies_;
};

}  // namespace

Continuation go_on(Sequence& sequence, const GenerationOptions& options, const OnToken& on_token,
                   std::uint64_t stream) {
  Draft draft(sequence, stream, 0, options, on_token);
  finish(draft, sequence);
  return draft.done();
}

std::vector<Continuation> continuations(std::span<const ContinuationOf> wanted,
                                        const GenerationOptions& options, const OnToken& on_token) {
  check(options.rows_at_once >= 1, "continuations: ", options.rows_at_once, " rows at once");
  std::vector<Continuation> done;
  while (done.size() < wanted.size()) {
    const std::size_t first = done.size(),
                      count = std::min(wanted.size() - first,
                                       static_cast<std::size_t>(options.rows_at_once));
    CaughtUp caught_up;
    std::list<Draft> drafts;
    std::vector<Row> rows;
    for (std::size_t i = first; i < first + count; ++i) {
      const Sequence& sequence = *wanted[i].sequence;
      drafts.emplace_back(sequence, wanted[i].stream, i, options, on_token);
      if (!drafts.back().goes_on()) continue;
      const Sequence& ready = caught_up.of(sequence);
      check(!ready.waiting().empty(), "continuations: a sequence holds no token");
      rows.push_back(
          {.draft = &drafts.back(), .sequence = &ready, .newest = ready.waiting().back()});
    }
    while (!rows.empty()) {
      const std::vector<Row> joined = take_joined(rows);
      if (joined.size() > 1) {
        finish_together(joined);
      } else {
        Sequence alone = *joined.front().sequence;
        finish_alone(*joined.front().draft, alone, options);
      }
    }
    for (const Draft& draft : drafts) done.push_back(draft.done());
  }
  return done;
}

std::vector<Continuation> sample(const Sequence& sequence, int samples,
                                 const GenerationOptions& options, const OnToken& on_token) {
  std::vector<ContinuationOf> wanted;
  for (int i = 0; i < samples; ++i)
    wanted.push_back({.sequence = &sequence, .stream = static_cast<std::uint64_t>(i)});
  return continuations(wanted, options, on_token);
}

std::vector<std::vector<Continuation>> continue_prompts(
    const InfiniTransformer& model, std::span<const std::vector<std::int32_t>> prompts, int samples,
    const GenerationOptions& options) {
  check(samples >= 1, "continue_prompts: ", samples, " samples");
  const auto together =
      static_cast<std::size_t>(std::max<std::int64_t>(1, options.rows_at_once / samples));
  std::vector<std::vector<Continuation>> done;
  while (done.size() < prompts.size()) {
    std::list<Sequence> sequences;
    std::vector<ContinuationOf> wanted;
    for (const std::vector<std::int32_t>& prompt :
         prompts.subspan(done.size(), std::min(together, prompts.size() - done.size()))) {
      sequences.emplace_back(model).give(prompt);
      sequences.back().catch_up();
      for (int i = 0; i < samples; ++i)
        wanted.push_back({.sequence = &sequences.back(), .stream = static_cast<std::uint64_t>(i)});
    }
    const std::vector<Continuation> all = continuations(wanted, options);
    for (auto of = all.begin(); of != all.end(); of += samples) done.emplace_back(of, of + samples);
  }
  return done;
}

}  // namespace infini
