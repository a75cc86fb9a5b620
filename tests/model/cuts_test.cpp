// A row is one text however it is cut into calls, and the memory keeps its precision over hundreds
// of segments.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/tiny_model.h"

namespace infini {
namespace {

using testing::ThrowsMessage;

class Cuts : public testing::TestWithParam<Tiny> {};

TEST_P(Cuts, SegmentsTakenAFewAtATimeEqualTheWholeRow) {
  const InfiniTransformer model = model_of(GetParam());
  const Memories memory = random_memories(model.config(), 2, DType::kFloat64);
  const Rows rows = rich_rows();
  const Hidden whole = hidden_of(model, rows, memory);
  const RowsResult evaluated = Recurrence(model, {}).evaluate(rows, memory, 100);
  for (const std::int64_t at_once : {1, 2, 3, 4}) {
    const Hidden parts = hidden_of(model, rows, memory, at_once);
    EXPECT_LE(relative_error(parts.states, whole.states), 1e-12);
    expect_near(parts.memory, whole.memory, 1e-12);
    const RowsResult part = Recurrence(model, {}).evaluate(rows, memory, at_once);
    EXPECT_LE(relative_error(part.nll, evaluated.nll), 1e-12);
    EXPECT_NEAR(part.loss.item() / evaluated.loss.item(), 1, 1e-12);
  }
}

TEST_P(Cuts, MemoryCarriedFromCallToCallContinuesTheRow) {
  const Rows rows = rich_rows();
  for (const RecurrenceOptions& options :
       {RecurrenceOptions{},
        RecurrenceOptions{.schedule = RowSchedule::kStreaming, .segments_per_tape = 2}}) {
    const InfiniTransformer model = model_of(GetParam());
    const Recurrence recurrence(model, options);
    const RowsResult whole = recurrence.evaluate(rows, empty_memories(model.config()), 100);
    Memories memory = empty_memories(model.config());
    double loss = 0;
    std::vector<double> nll[2];
    for (const auto& [begin, count] : {std::pair{0, 10}, std::pair{10, 5}, std::pair{15, 13}}) {
      const RowsResult result = recurrence.train(part_of(rows, begin, count), memory, 1, {});
      memory = result.memory;
      loss += result.loss.item();
      for (const int b : {0, 1})
        for (const double value : result.nll.slice(b, 1).to_vector<double>())
          nll[b].push_back(value);
    }
    EXPECT_NEAR(loss / whole.loss.item(), 1, 1e-12);
    for (const int b : {0, 1})
      EXPECT_LE(relative_error(nll[b], whole.nll.slice(b, 1).to_vector<double>()), 1e-12);
    expect_near(memory, whole.memory, 1e-12);
  }
}

TEST_P(Cuts, ARaggedLastSegmentIsTheStartOfAFullOne) {
  const InfiniTransformer model = model_of(GetParam());
  const Rows rows = rows_of(15);
  const Hidden full = hidden_of(model, rows);
  for (const std::int64_t tokens : {1, 4, 11, 13, 14}) {
    const Hidden ragged = hidden_of(model, part_of(rows, 0, tokens));
    for (const int b : {0, 1})
      EXPECT_LE(relative_error(ragged.at(b, 0, tokens), full.at(b, 0, tokens)), 1e-12);
  }
}

TEST_P(Cuts, MemoriesOf512SegmentsStayNearFp64) {
  Tiny tiny = GetParam();
  if (tiny.memory == MemoryRule::kNone) return;
  tiny.segment_tokens = 4;
  const Rows rows = rows_of(4 * 512, 4);
  const InfiniTransformer exact = model_of(tiny);
  tiny.dtype = DType::kFloat32;
  const InfiniTransformer model = model_of(tiny);
  const RowsResult expected =
      Recurrence(exact, {}).evaluate(rows, empty_memories(exact.config()), 64);
  const RowsResult got = Recurrence(model, {}).evaluate(rows, empty_memories(model.config()), 64);
  for (const MemoryState& state : got.memory)
    for (const Tensor& part : {state.matrix, state.normalizer})
      for (const float value : part.to_vector<float>()) ASSERT_TRUE(std::isfinite(value));
  expect_near(got.memory, expected.memory, 1e-4);
  EXPECT_LE(relative_error(got.nll, expected.nll), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Models, Cuts, testing::ValuesIn(kTinies), tiny_name);

TEST(Recurrence, RefusesRowsThatDoNotFitTheModel) {
  const InfiniTransformer model = model_of({});
  const Memories memory = empty_memories(model.config());
  const auto refusal = [&](const Rows& rows, const RecurrenceOptions& options = {},
                           const Memories* given = nullptr) {
    std::string messages[2];
    for (const bool training : {true, false}) try {
        const Recurrence recurrence(model, options);
        training ? recurrence.train(rows, given ? *given : memory, 1, {})
                 : recurrence.evaluate(rows, given ? *given : memory, options.segments_per_tape);
      } catch (const Error& error) {
        messages[training] = error.what();
      }
    EXPECT_EQ(messages[0], messages[1]);
    return messages[0];
  };
  Rows rows = rows_of(12);
  rows.segment_tokens = 6;
  EXPECT_EQ(refusal(rows), "rows have segments of 6 tokens, the model is made for 5");
  rows.segment_tokens = 0;
  EXPECT_EQ(refusal(rows), "rows have segments of 0 tokens, the model is made for 5");
  rows = rows_of(12);
  rows.targets = random_ids({2, 11}, 3);
  EXPECT_EQ(refusal(rows), "targets are [2, 11], tokens are [2, 12]");
  rows = rows_of(12);
  rows.keep = Tensor::zeros({2, 11}, DType::kUInt8);
  EXPECT_EQ(refusal(rows), "keep is [2, 11], tokens are [2, 12]");
  rows = rows_of(12);
  rows.weights = Tensor::zeros({1, 12}, DType::kFloat32);
  EXPECT_EQ(refusal(rows), "weights are [1, 12], tokens are [2, 12]");
  rows = rows_of(12);
  rows.resets = Tensor::zeros({2, 2}, DType::kUInt8);
  EXPECT_EQ(refusal(rows), "resets are [2, 2], expected [2, 3]");
  EXPECT_EQ(refusal(rows_of(0)), "rows have no tokens: [2, 0]");
  rows = rows_of(12);
  rows.tokens.data<std::int32_t>()[3] = 23;
  EXPECT_EQ(refusal(rows), "rows: tokens hold 23, the model's vocabulary is 23");
  EXPECT_EQ(refusal(rows_of(12), {.schedule = RowSchedule::kStreaming, .segments_per_tape = 0}),
            "a piece of a row has at least 1 segment, got 0");
  const Memories one(1);
  EXPECT_EQ(refusal(rows_of(12), {}, &one), "a model of 2 layers was given 1 memories, expected 2");
  const Memories three = random_memories(model.config(), 3, DType::kFloat64);
  EXPECT_EQ(refusal(rows_of(12), {}, &three),
            "scan: the initial state is [3, 2, 6], expected [2, 2, 6]");
}

}  // namespace
}  // namespace infini
