// Texts that are given in parts, interrupted, and continued several at a time.
#include "trainer/generation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/trainer/sequences.h"

namespace infini {
namespace {

using testing::ElementsAre;
using testing::ThrowsMessage;
using End = Continuation::End;

Ids tokens_of(const Continuation& done) { return done.tokens; }
std::vector<Ids> tokens_of(const std::vector<Continuation>& all) {
  std::vector<Ids> tokens;
  for (const Continuation& done : all) tokens.push_back(done.tokens);
  return tokens;
}

const GenerationOptions kOptions{
    .sampling = {.temperature = 0.9, .top_k = 12, .top_p = 0.95}, .max_tokens = 17, .seed = 5};

class Generation : public testing::TestWithParam<Tiny> {
 protected:
  InfiniTransformer model() const {
    Tiny tiny = GetParam();
    tiny.dtype = DType::kFloat32;
    return model_of(tiny);
  }
};

// The logits of the newest token and of some after it, which are given.
std::vector<std::vector<float>> logits_after(Sequence sequence) {
  std::vector<std::vector<float>> all;
  for (const std::int32_t token : some_ids(8, 41)) {
    all.push_back(sequence.next_logits());
    sequence.write(token);
  }
  return all;
}

TEST_P(Generation, DoesNotDependOnThePartsInWhichATextIsGiven) {
  const InfiniTransformer model = this->model();
  const Ids prompt = some_ids(58);  // stretches of 20 tokens, segments of 5
  const auto whole = logits_after(sequence_of(model, prompt));
  for (std::size_t cut = 1; cut < prompt.size(); cut += cut < 24 ? 1 : 5) {
    Sequence parts(model);
    parts.give(std::span(prompt).first(cut));
    Sequence again(model, parts.state());
    again.give(std::span(prompt).subspan(cut));
    EXPECT_EQ(again.tokens(), 58);
    EXPECT_EQ(logits_after(again), whole) << "cut at " << cut;
  }
  Sequence single(model);
  for (const std::int32_t& token : prompt) single.give(std::span(&token, 1));
  EXPECT_EQ(logits_after(single), whole);
}

TEST_P(Generation, WritesOnAsIfItHadNeverStopped) {
  const InfiniTransformer model = this->model();
  GenerationOptions options = kOptions;
  options.repetition = {.penalty = 1.3, .no_repeat_ngram = 3};
  Sequence whole = sequence_of(model, some_ids(33));
  const Ids expected = go_on(whole, options).tokens;
  ASSERT_EQ(expected.size(), 17u);
  for (std::int64_t first = 0; first < 17; first += 4) {
    Sequence sequence = sequence_of(model, some_ids(33));
    options.max_tokens = first;
    Ids written = go_on(sequence, options).tokens;
    Sequence again(model, sequence.state());
    options.max_tokens = 17 - first;
    const Ids rest = go_on(again, options).tokens;
    written.insert(written.end(), rest.begin(), rest.end());
    EXPECT_EQ(written, expected);
    EXPECT_EQ(logits_after(again), logits_after(whole));
  }
}

TEST_P(Generation, SamplesDoNotDependOnThoseBesideThem) {
  const InfiniTransformer model = this->model();
  const Sequence sequence = sequence_of(model, some_ids(28));
  GenerationOptions options = kOptions;
  options.repetition.penalty = 1.2;
  options.stop_tokens = {3};
  const std::vector<Ids> all = tokens_of(sample(sequence, 6, options));
  EXPECT_EQ(sequence.tokens_read(), 20);  // it stays where it was
  for (const std::int64_t rows : {1, 2, 4}) {
    options.rows_at_once = rows;
    EXPECT_EQ(tokens_of(sample(sequence, 6, options)), all) << rows << " rows at once";
  }
  for (std::uint64_t i = 0; i < all.size(); ++i) {
    Sequence alone = sequence;
    EXPECT_EQ(tokens_of(go_on(alone, options, {}, i)), all[i]);
    for (std::uint64_t j = 0; j < i; ++j) EXPECT_NE(all[i], all[j]);
  }
}

TEST_P(Generation, ContinuesPromptsOfAnyLengthsAsEachByItself) {
  const InfiniTransformer model = this->model();
  std::vector<Ids> prompts;
  for (const std::int64_t length : {1, 7, 27, 12, 27, 5, 61})
    prompts.push_back(some_ids(length, static_cast<std::uint32_t>(60 + length)));
  GenerationOptions options = kOptions;
  for (const std::int64_t rows : {1, 6, 100}) {
    options.rows_at_once = rows;
    const auto all = continue_prompts(model, prompts, 2, options);
    ASSERT_EQ(all.size(), prompts.size());
    for (std::size_t p = 0; p < prompts.size(); ++p)
      EXPECT_EQ(tokens_of(all[p]), tokens_of(sample(sequence_of(model, prompts[p]), 2, options)))
          << "prompt " << p << ", " << rows << " rows";
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Generation, testing::ValuesIn(kTinies), tiny_name);

const InfiniTransformer& a_model() {
  static const InfiniTransformer model = model_of({.dtype = DType::kFloat32});
  return model;
}

TEST(GenerationOf, OneSequenceEndsBeforeAStopToken) {
  GenerationOptions options = kOptions;
  Sequence free = sequence_of(a_model(), some_ids(20));
  const Ids all = go_on(free, options).tokens;
  const auto first = std::ranges::find(all, all[9]);
  options.stop_tokens = {99, all[9]};
  Sequence stopped = sequence_of(a_model(), some_ids(20));
  const Continuation done = go_on(stopped, options);
  EXPECT_EQ(done.tokens, Ids(all.begin(), first));
  EXPECT_EQ(done.end, End::kStopToken);
  EXPECT_TRUE(stopped.ended());
  EXPECT_EQ(stopped.tokens(), 20 + static_cast<std::int64_t>(done.tokens.size()));
  // Nothing follows, unless it is given something.
  EXPECT_TRUE(go_on(stopped, options).tokens.empty());
  EXPECT_TRUE(sample(stopped, 2, options)[1].tokens.empty());
  stopped.give(some_ids(3));
  EXPECT_FALSE(stopped.ended());
  options.stop_tokens = {};
  EXPECT_EQ(go_on(stopped, options).tokens.size(), 17u);
}

TEST(GenerationOf, OneSequenceEndsWhereTheCallerSaysOrThereAreEnough) {
  Sequence sequence = sequence_of(a_model(), some_ids(9));
  Ids heard;
  const Continuation done = go_on(sequence, kOptions, [&](std::size_t i, std::int32_t token) {
    EXPECT_EQ(i, 0u);
    heard.push_back(token);
    return heard.size() < 4;
  });
  EXPECT_EQ(done.tokens, heard);
  EXPECT_EQ(heard.size(), 4u);
  EXPECT_EQ(done.end, End::kCaller);
  GenerationOptions none = kOptions;
  none.max_tokens = 0;
  EXPECT_TRUE(go_on(sequence, none).tokens.empty());
  EXPECT_EQ(go_on(sequence, kOptions).end, End::kLength);
  EXPECT_THAT(sequence.written(), testing::SizeIs(4 + 17));
}

TEST(GenerationOf, SeveralSamplesIsHeardSampleBySample) {
  const Sequence sequence = sequence_of(a_model(), some_ids(9));
  std::vector<Ids> heard(3);
  const auto all = sample(sequence, 3, kOptions, [&](std::size_t i, std::int32_t token) {
    heard.at(i).push_back(token);
    return heard[i].size() < 5 + i;
  });
  EXPECT_EQ(tokens_of(all), heard);
  EXPECT_THAT(heard, ElementsAre(testing::SizeIs(5), testing::SizeIs(6), testing::SizeIs(7)));
}

TEST(GenerationOf, TheMostLikelyTokensIsThatOfADecoder) {
  GenerationOptions options = kOptions;
  options.sampling.temperature = 0;
  const Ids prompt = some_ids(31);
  const Ids expected = Decoder(a_model()).generate_greedy(prompt, 17);
  const Sequence sequence = sequence_of(a_model(), prompt);
  for (const Continuation& done : sample(sequence, 3, options)) EXPECT_EQ(done.tokens, expected);
  EXPECT_EQ(sample(sequence, 1, options)[0].tokens, expected);
}

TEST(GenerationOf, ATextWithoutRepeatedRunsHasNone) {
  GenerationOptions options = kOptions;
  options.sampling.temperature = 0;
  options.max_tokens = 60;
  const auto repeats = [](const Ids& tokens) {
    for (std::size_t i = 0; i + 2 < tokens.size(); ++i)
      for (std::size_t j = 0; j < i; ++j)
        if (tokens[i] == tokens[j] && tokens[i + 1] == tokens[j + 1]) return true;
    return false;
  };
  const Sequence sequence = sequence_of(a_model(), some_ids(9));
  EXPECT_TRUE(repeats(sample(sequence, 1, options)[0].tokens));
  options.repetition.no_repeat_ngram = 2;
  EXPECT_FALSE(repeats(sample(sequence, 1, options)[0].tokens));
}

TEST(GenerationOf, NothingIsRefused) {
  Sequence empty(a_model());
  EXPECT_THAT([&] { go_on(empty, kOptions); },
              ThrowsMessage<Error>("sequence: nothing waits to be read"));
  EXPECT_THAT([&] { sample(empty, 2, kOptions); },
              ThrowsMessage<Error>("continuations: a sequence holds no token"));
}

TEST(SequenceOf, ALongTextHoldsNoMoreThanThatOfAShortOne) {
  Sequence sequence(a_model());
  std::vector<std::int64_t> read;
  sequence.give(some_ids(500), [&](std::int64_t tokens) { read.push_back(tokens); });
  EXPECT_EQ(read.size(), 24u);  // the last stretch of 20 waits for a token after it
  EXPECT_EQ(read.front(), 20);
  EXPECT_EQ(read.back(), 480);
  EXPECT_EQ(sequence.tokens(), 500);
  EXPECT_EQ(sequence.waiting().size(), 20u);
  sequence.catch_up([&](std::int64_t tokens) { read.push_back(tokens); });
  EXPECT_EQ(read.back(), 499);
  EXPECT_EQ(sequence.waiting().size(), 1u);
}

}  // namespace
}  // namespace infini
