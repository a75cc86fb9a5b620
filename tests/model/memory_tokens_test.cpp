// Memory tokens against plain loops over tokens, their gradient through segments, and what they
// refuse. That schedules, cuts, blocks computed again and generation agree, and who sees whom, is
// asked of them with the other architectures, see kTinies.
#include "model/memory_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/flops.h"
#include "tests/model/architecture_checks.h"

namespace infini {
namespace {

using testing::ThrowsMessage;

Tiny rmt(std::int64_t memory_tokens = 3, int kv_heads = 2) {
  return {.memory = MemoryRule::kNone,
          .kv_heads = kv_heads,
          .architecture = Architecture::kRmt,
          .memory_tokens = memory_tokens};
}

Tiny compressor(std::int64_t memory_tokens = 2, std::int64_t segments = 3, int kv_heads = 2) {
  return {.memory = MemoryRule::kNone,
          .kv_heads = kv_heads,
          .architecture = Architecture::kAutoCompressor,
          .memory_tokens = memory_tokens,
          .memory_segments = segments};
}

// The model of one row by plain loops: a list of vectors for each segment, memory among them.
class Plain : public PlainLoops {
 public:
  using PlainLoops::PlainLoops;

  // starts[s]: segment s begins a document.
  Grid hidden(const std::vector<std::int32_t>& tokens, const std::vector<bool>& starts) const {
    const auto segment = static_cast<std::size_t>(config().segment_tokens);
    const bool accumulates = config().architecture == Architecture::kAutoCompressor;
    Grid learned, memory, result;
    for (std::int64_t m = 0; m < config().memory_tokens; ++m)
      learned.push_back(row("memory_tokens.weight", m));
    for (std::size_t begin = 0; begin < tokens.size(); begin += segment) {
      if (begin == 0 || starts[begin / segment]) memory = accumulates ? Grid{} : learned;
      const std::size_t end = std::min(begin + segment, tokens.size());
      Grid h = memory;
      for (std::size_t t = begin; t < end; ++t) h.push_back(row("embedding.weight", tokens[t]));
      for (const Array& last : accumulates ? learned : memory) h.push_back(last);
      for (int layer = 0; layer < config().layers; ++layer)
        h = block(h, layer, [this](const Grid& x, const std::string& prefix) {
          return attention(x, prefix);
        });
      h = norm(h, "final_norm.weight");
      const auto first = h.begin() + static_cast<std::ptrdiff_t>(memory.size());
      const auto written = first + static_cast<std::ptrdiff_t>(end - begin);
      result.insert(result.end(), first, written);
      if (!accumulates) memory.clear();
      memory.insert(memory.end(), written, h.end());
      const auto most = static_cast<std::size_t>(config().read_tokens());
      if (memory.size() > most) memory.erase(memory.begin(), memory.end() - most);
    }
    return result;
  }

 private:
  Grid attention(const Grid& x, const std::string& prefix) const {
    const int width = config().head_width(), group = config().heads / config().key_value_heads();
    Grid result;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const Array q = times(prefix + "query.weight", x[i]);
      Array heads(q.size(), 0.0);
      for (int h = 0; h < config().heads; ++h) {
        const Array q_i = turned(q, h, i);
        Array weights;
        double total = 0;
        for (std::size_t j = 0; j <= i; ++j) {
          const Array k_j = turned(times(prefix + "key.weight", x[j]), h / group, j);
          double score = 0;
          for (int c = 0; c < width; ++c) score += q_i[c] * k_j[c];
          weights.push_back(std::exp(score / std::sqrt(width)));
          total += weights.back();
        }
        for (std::size_t j = 0; j <= i; ++j) {
          const Array v = times(prefix + "value.weight", x[j]);
          for (int c = 0; c < width; ++c)
            heads[h * width + c] += weights[j] / total * v[h / group * width + c];
        }
      }
      result.push_back(times(prefix + "output.weight", heads));
    }
    return result;
  }
};

class MemoryTokens : public testing::TestWithParam<Tiny> {};

TEST_P(MemoryTokens, EqualPlainLoops) {
  const InfiniTransformer model = model_of(GetParam());
  Rows rows = rows_of(28);
  rows.resets = Tensor::of(std::vector<std::uint8_t>{0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0}, {2, 6});
  const Hidden got = hidden_of(model, rows);
  for (const int b : {0, 1}) {
    const auto ids = rows.tokens.slice(b, 1).to_vector<std::int32_t>();
    const auto expected = Plain(model).hidden(
        ids, b == 0 ? std::vector<bool>{false, false, false, false, true, false}
                    : std::vector<bool>{true, false, false, true, false, false});
    for (std::int64_t t = 0; t < 28; ++t)
      EXPECT_LE(relative_error(got.at(b, t, 1).to_vector<double>(), expected[t]), 1e-11) << t;
  }
}

// What is learned of the memory among them.
TEST_P(MemoryTokens, HaveTheGradientsOfFiniteDifferences) {
  expect_slopes_through_segments(model_of(GetParam()));
}

TEST_P(MemoryTokens, StopGradientsAtTheHorizon) {
  expect_gradients_stop_at_the_horizon([&] { return model_of(GetParam()); });
}

TEST_P(MemoryTokens, GiveTheSameBytesInPiecesOfAnyLength) {
  expect_same_bytes_in_pieces(GetParam());
}

TEST_P(MemoryTokens, StandOnlyWhereTheyWereWritten) {
  expect_only_written_is_read(model_of(GetParam()));
}

TEST_P(MemoryTokens, SwitchedOffLeaveEachSegmentAlone) {
  InfiniTransformer model = model_of(GetParam());
  const Rows rows = rows_of(15);
  const Memories kept = hidden_of(model, part_of(rows, 0, 5)).memory;
  model.use_memory(false);
  const Hidden off = hidden_of(model, rows);
  // Of the first segment, which finds nothing, the memory is written as ever.
  expect_near(hidden_of(model, part_of(rows, 0, 5)).memory, kept, 0);
  model.use_memory(true);
  const Hidden alone = hidden_of(model, part_of(rows, 5, 5)), on = hidden_of(model, rows);
  EXPECT_TRUE(same_bytes(off.at(0, 5, 5), alone.at(0, 0, 5)));
  EXPECT_GT(relative_error(on.at(0, 5, 5), alone.at(0, 0, 5)), 0.01);
}

INSTANTIATE_TEST_SUITE_P(Forms, MemoryTokens,
                         testing::Values(rmt(1, 1), rmt(3, 2), rmt(6, 1), compressor(1, 1, 1),
                                         compressor(2, 3, 2), compressor(3, 2, 1)),
                         tiny_name);

// What a document starts from is learned.
TEST(Rmt, ReadsItsStartWhereNothingIsWritten) {
  const InfiniTransformer model = model_of(rmt());
  const Rows rows = rows_of(10);
  const Hidden nothing = hidden_of(model, rows);
  const Parameter& start = model.parameters()["memory_tokens.weight"];
  start.value.data<double>()[0] += 1;
  const Hidden other = hidden_of(model, rows);
  EXPECT_GT(relative_error(other.at(0, 0, 5), nothing.at(0, 0, 5)), 1e-3);
  EXPECT_GT(relative_error(other.at(0, 5, 5), nothing.at(0, 5, 5)), 1e-4);
}

// Without a past nothing stands before the tokens of auto_compressor: its first segment is local
// attention's, token for token.
TEST(AutoCompressor, StartsLikeLocalAttention) {
  const InfiniTransformer model = model_of(compressor());
  Tiny tiny = compressor();
  tiny.architecture = Architecture::kInfini;
  tiny.memory_tokens = tiny.memory_segments = 0;
  const InfiniTransformer local = model_of(tiny);  // parameters of one name start alike
  const Rows rows = rows_of(10);
  const Hidden got = hidden_of(model, rows), expected = hidden_of(local, rows);
  EXPECT_LE(relative_error(got.at(0, 0, 5), expected.at(0, 0, 5)), 1e-13);
  EXPECT_GT(relative_error(got.at(0, 5, 5), expected.at(0, 5, 5)), 0.01);
}

// The oldest summaries leave when there is no more room.
TEST(AutoCompressor, KeepsTheNewestSummaries) {
  const Rows rows = rows_of(25);
  const InfiniTransformer model = model_of(compressor(2, 3)), longer = model_of(compressor(2, 4));
  const Memories before = hidden_of(model, part_of(rows, 0, 15)).memory,
                 after = hidden_of(model, part_of(rows, 15, 5), before).memory,
                 longest = hidden_of(longer, part_of(rows, 0, 15)).memory;
  const auto of_row = [](const Memories& memory, std::int64_t row, std::int64_t first,
                         std::int64_t count) {
    return memory[0]
        .vectors.slice(row, 1)
        .reshape({memory[0].vectors.shape()[1], 12})
        .slice(first, count);
  };
  for (const std::int64_t row : {0, 1}) {
    EXPECT_TRUE(same_bytes(of_row(after, row, 0, 4), of_row(before, row, 2, 4)));
    EXPECT_LE(relative_error(of_row(longest, row, 2, 6), of_row(before, row, 0, 6)), 1e-12);
  }
  EXPECT_EQ(longest[0].present.to_vector<int>(),
            (std::vector<int>{0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1}));
}

TEST(Rmt, RefusesGroupsOfSegmentsAndForeignMemories) {
  const InfiniTransformer model = model_of(rmt());
  const Memories memory = random_memories(model.config(), 3, DType::kFloat64);
  EXPECT_THAT(
      [&] { hidden_of(model, rows_of(10), memory); },
      ThrowsMessage<Error>("rmt: the memory is [3, 3, 12] in f64, expected [2, 3, 12] in f64"));
  EXPECT_THAT([&] { hidden_of(model, rows_of(10), Memories(2)); },
              ThrowsMessage<Error>("a model of 2 layers was given 2 memories, expected 1"));
  expect_no_groups(model,
                   "rmt: a segment needs the one before it; segments in groups would not have it");
}

// As local attention over segments of as many positions, whose tokens share the arithmetic.
TEST(Flops, CountThePositionsOfMemoryTokens) {
  for (const auto& [tiny, added] : {std::pair(rmt(3), 6), std::pair(compressor(2, 3), 8)}) {
    const ModelConfig config = config_of(tiny);
    ModelConfig local = config;
    local.architecture = Architecture::kInfini;
    local.memory_tokens = local.memory_segments = 0;
    local.segment_tokens = config.segment_tokens + added;
    const double vocabulary = 3 * 2.0 * config.d_model * config.vocabulary;
    const double positions = (5.0 + added) / 5;
    EXPECT_NEAR(training_flops_per_token(config) - vocabulary,
                positions * (training_flops_per_token(local) - vocabulary), 1e-6);
  }
}

}  // namespace
}  // namespace infini
