// What the layer promises about who sees whom.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/tiny_model.h"

namespace infini {
namespace {

class Invariants : public testing::TestWithParam<Tiny> {};

// Perturbing token t of a row leaves everything before it, and every other row, the same to the
// last bit.
TEST_P(Invariants, NothingSeesLaterTokensOrOtherRows) {
  for (const DType dtype : {DType::kFloat64, DType::kFloat32, DType::kBFloat16}) {
    Tiny tiny = GetParam();
    tiny.dtype = dtype;
    const InfiniTransformer model = model_of(tiny);
    const Rows rows = rows_of(18);
    const Hidden before = hidden_of(model, rows);
    const auto logits = [&](const Hidden& hidden, std::int64_t row, std::int64_t begin,
                            std::int64_t count) {
      return model.logits(hidden.at(row, begin, count).clone());
    };
    for (const std::int64_t t : {0, 1, 4, 5, 6, 9, 10, 14, 15, 17}) {
      SCOPED_TRACE(text("token ", t, " in ", dtype));
      std::int32_t& token = rows.tokens.data<std::int32_t>()[t];
      const std::int32_t usual = token;
      token = (usual + 1) % 23;
      const Hidden after = hidden_of(model, rows);
      token = usual;
      EXPECT_TRUE(same_bytes(after.at(0, 0, t), before.at(0, 0, t)));
      EXPECT_TRUE(same_bytes(logits(after, 0, 0, t), logits(before, 0, 0, t)));
      EXPECT_TRUE(same_bytes(after.at(1, 0, 18), before.at(1, 0, 18)));
      EXPECT_FALSE(same_bytes(after.at(0, t, 1), before.at(0, t, 1)));
      // What follows sees it: in the same segment always, in later ones through the memory.
      if (t % 5 != 4 && t != 17) {
        EXPECT_FALSE(same_bytes(after.at(0, t + 1, 1), before.at(0, t + 1, 1)));
      }
      // What a memory that is searched holds is read or not, whatever the token.
      const bool searched = tiny.architecture == Architecture::kMemorizingTransformer &&
                            tiny.neighbours < tiny.retrieval_tokens;
      if (t < 15 && !searched) {
        // A cache of one segment and two layers reach two segments back, one of more reaches all.
        const bool forgotten = tiny.carries() ? tiny.architecture == Architecture::kTransformerXl &&
                                                    tiny.cache_tokens == 0 && t < 5
                                              : true;
        EXPECT_EQ(same_bytes(after.at(0, 15, 3), before.at(0, 15, 3)), forgotten);
      }
    }
  }
}

// The same where a segment is longer than the tiles that attention works on.
TEST_P(Invariants, NothingSeesLaterTokensOfALongSegment) {
  Tiny tiny = GetParam();
  tiny.segment_tokens = 150;
  if (tiny.architecture == Architecture::kCompressiveTransformer && tiny.cache_tokens > 0)
    tiny.cache_tokens += 150;  // no less than a segment
  tiny.dtype = DType::kFloat32;
  const InfiniTransformer model = model_of(tiny);
  const Rows rows = rows_of(310, 150);
  const Hidden before = hidden_of(model, rows);
  for (const std::int64_t t : {62, 63, 64, 65, 127, 128, 149, 150, 213, 214, 299, 300}) {
    SCOPED_TRACE(text("token ", t));
    std::int32_t& token = rows.tokens.data<std::int32_t>()[310 + t];
    const std::int32_t usual = token;
    token = (usual + 1) % 23;
    const Hidden after = hidden_of(model, rows);
    token = usual;
    EXPECT_TRUE(same_bytes(after.at(1, 0, t), before.at(1, 0, t)));
    EXPECT_FALSE(same_bytes(after.at(1, t, 1), before.at(1, t, 1)));
    EXPECT_TRUE(same_bytes(after.at(0, 0, 310), before.at(0, 0, 310)));
  }
}

TEST_P(Invariants, ARowAloneEqualsTheRowAmongOthers) {
  const InfiniTransformer model = model_of(GetParam());
  const Rows rows = rows_of(18);
  const Hidden both = hidden_of(model, rows);
  for (const std::int64_t row : {0, 1}) {
    const Rows alone{.segment_tokens = 5,
                     .tokens = rows.tokens.slice(row, 1),
                     .targets = rows.targets.slice(row, 1),
                     .weights = {},
                     .resets = {},
                     .keep = {}};
    EXPECT_LE(relative_error(hidden_of(model, alone).at(0, 0, 18), both.at(row, 0, 18)), 1e-13);
  }
}

TEST_P(Invariants, AClosedGateIsLocalAttention) {
  Tiny tiny = GetParam();
  if (tiny.memory == MemoryRule::kNone) return;
  for (const DType dtype : {DType::kFloat64, DType::kFloat32}) {
    tiny.dtype = dtype;
    tiny.gate_mean = -1000;
    const InfiniTransformer closed = model_of(tiny);
    tiny.gate_mean = 0;
    InfiniTransformer switched_off = model_of(tiny);
    switched_off.use_memory(false);
    Tiny local = tiny;
    local.memory = MemoryRule::kNone;
    const Hidden expected = hidden_of(model_of(local), rows_of(18));
    EXPECT_TRUE(same_bytes(hidden_of(closed, rows_of(18)).states, expected.states));
    EXPECT_TRUE(same_bytes(hidden_of(switched_off, rows_of(18)).states, expected.states));
    switched_off.use_memory(true);
    EXPECT_GT(relative_error(hidden_of(switched_off, rows_of(18)).states, expected.states), 0.01);
  }
}

TEST_P(Invariants, PaddingWritesNothing) {
  if (GetParam().architecture != Architecture::kInfini) return;  // there it takes up its place
  const InfiniTransformer model = model_of(GetParam());
  // The second segment, padded or not there at all.
  Rows padded = rows_of(15), shorter = rows_of(10);
  std::vector<std::uint8_t> keep(30, 1);
  for (const std::int64_t b : {0, 1})
    for (std::int64_t t = 0; t < 15; ++t) {
      if (t / 5 == 1) keep[b * 15 + t] = 0;
      if (t / 5 != 1)
        shorter.tokens.data<std::int32_t>()[b * 10 + (t < 5 ? t : t - 5)] =
            padded.tokens.data<std::int32_t>()[b * 15 + t];
    }
  padded.keep = Tensor::of(keep, {2, 15});
  const Hidden with = hidden_of(model, padded), without = hidden_of(model, shorter);
  expect_near(with.memory, without.memory, 0);
  EXPECT_TRUE(same_bytes(with.at(1, 10, 5), without.at(1, 5, 5)));
}

TEST_P(Invariants, AResetStartsANewDocument) {
  const InfiniTransformer model = model_of(GetParam());
  Rows joined = rows_of(18);
  joined.resets = Tensor::of(std::vector<std::uint8_t>{0, 0, 1, 0, 0, 0, 1, 0}, {2, 4});
  const Hidden both = hidden_of(model, joined);
  Rows first = part_of(joined, 0, 10), second = part_of(joined, 10, 8);
  first.resets = second.resets = {};
  EXPECT_TRUE(same_bytes(both.at(0, 0, 10), hidden_of(model, first).at(0, 0, 10)));
  const Hidden fresh = hidden_of(model, second);
  EXPECT_LE(relative_error(both.at(0, 10, 8), fresh.at(0, 0, 8)), 1e-13);
  expect_near(both.memory, fresh.memory, 1e-13);
}

TEST_P(Invariants, AResetAtTheStartForgetsTheMemoryCarriedIn) {
  if (!GetParam().carries()) return;
  const InfiniTransformer model = model_of(GetParam());
  Rows rows = rows_of(10);
  rows.resets = Tensor::of(std::vector<std::uint8_t>{1, 0, 0, 0}, {2, 2});
  const Memories memory = random_memories(model.config(), 2, DType::kFloat64);
  const Hidden carried = hidden_of(model, rows, memory), fresh = hidden_of(model, rows);
  EXPECT_TRUE(same_bytes(carried.at(0, 0, 10), fresh.at(0, 0, 10)));
  EXPECT_FALSE(same_bytes(carried.at(1, 0, 10), fresh.at(1, 0, 10)));
}

INSTANTIATE_TEST_SUITE_P(Models, Invariants, testing::ValuesIn(kTinies), tiny_name);

// In block 1 keys and values carry no position and see no other token, so that a segment writes the
// same in any order.
TEST(Memory, OfTheFirstBlockDoesNotKnowTheOrderInsideASegment) {
  for (const MemoryRule rule : {MemoryRule::kLinear, MemoryRule::kDelta}) {
    const InfiniTransformer model = model_of({.memory = rule, .kv_heads = 1, .layers = 1});
    const Rows rows = rows_of(18);
    const Hidden before = hidden_of(model, rows);
    std::int32_t* segment = rows.tokens.data<std::int32_t>() + 5;
    std::rotate(segment, segment + 2, segment + 5);
    const Hidden after = hidden_of(model, rows);
    EXPECT_GT(relative_error(after.at(0, 5, 5), before.at(0, 5, 5)), 0.01);
    EXPECT_LE(relative_error(after.at(0, 10, 8), before.at(0, 10, 8)), 1e-12);
    expect_near(after.memory, before.memory, 1e-12);
  }
}

// What a read divides out: as many times the memory, as many times the normaliser.
TEST(Memory, OfTheLinearRuleIsReadUpToScale) {
  const InfiniTransformer model = model_of({.kv_heads = 1});
  const Memories memory = random_memories(model.config(), 2, DType::kFloat64);
  Memories larger;
  for (const MemoryState& state : memory) {
    larger.push_back({.matrix = state.matrix.clone(), .normalizer = state.normalizer.clone()});
    for (const Tensor& part : {larger.back().matrix, larger.back().normalizer})
      for (std::int64_t i = 0; i < part.size(); ++i) part.data<double>()[i] *= 7;
  }
  const Hidden usual = hidden_of(model, rows_of(10), memory),
               scaled = hidden_of(model, rows_of(10), larger);
  EXPECT_LE(relative_error(scaled.at(0, 0, 5), usual.at(0, 0, 5)), 1e-12);
  EXPECT_GT(relative_error(scaled.at(0, 5, 5), usual.at(0, 5, 5)),
            1e-4);  // the next segment added to it
}

}  // namespace
}  // namespace infini
