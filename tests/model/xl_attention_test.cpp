// Transformer-XL against plain loops over tokens, its cache, and what it refuses. That schedules,
// cuts, blocks computed again and generation agree, and who sees whom, is asked of it with the
// other architectures, see kTinies.
#include "model/xl_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/architecture_checks.h"
#include "tests/model/plain_xl.h"

namespace infini {
namespace {

using testing::ThrowsMessage;

Tiny xl(std::int64_t cache_tokens = 0, int kv_heads = 2) {
  return {.memory = MemoryRule::kNone,
          .kv_heads = kv_heads,
          .architecture = Architecture::kTransformerXl,
          .cache_tokens = cache_tokens};
}

TEST(TransformerXl, EqualsPlainLoops) {
  for (const std::int64_t cache : {0, 1, 3, 7, 12, 40})
    for (const int kv_heads : {1, 2}) {
      SCOPED_TRACE(text("cache ", cache, ", ", kv_heads, " key heads"));
      const InfiniTransformer model = model_of(xl(cache, kv_heads));
      expect_plain_loops<PlainXl>(model, 23);
    }
}

// No gradient goes through the cache, so differences must hold what it keeps: with one layer, keys
// and values of cached tokens depend on parameters before them through the embedding and the norm
// alone. Their own gradients are those of differences.
TEST(TransformerXl, HasTheGradientsOfFiniteDifferences) {
  Tiny tiny = xl(3, 1);
  tiny.layers = 1;
  const InfiniTransformer model = model_of(tiny);
  const Rows rows = rows_of(13);
  const Memories memory = random_memories(model.config(), 2, DType::kFloat64);
  const Recurrence recurrence(model, {});
  recurrence.train(rows, memory, 1, {});
  for (const char* name :
       {"attention.query.weight", "attention.key.weight", "attention.value.weight",
        "attention.output.weight", "attention.position.weight", "attention.content_bias",
        "attention.position_bias", "feed_forward.up.weight"})
    expect_slopes(recurrence, rows, memory, model.parameters()[text("blocks.0.", name)], 7, 1e-6);
}

// What a later segment reads of this one in its cache adds nothing to its gradient.
TEST(TransformerXl, StopsGradientsAtTheCache) {
  const auto model = [] { return model_of(xl()); };
  const Rows rows = rows_of(10);
  EXPECT_LE(
      relative_error(gradients_of_rows(model(), rows, 0), gradients_of_segments(model(), rows)),
      1e-13);
}

// Evaluation may read further than training did, or less.
TEST(TransformerXl, TakesTheNewestTokensOfACacheOfAnotherLength) {
  const Rows rows = rows_of(25);
  for (const std::int64_t cache : {2, 5, 11}) {
    const InfiniTransformer longer = model_of(xl(20)), model = model_of(xl(cache));
    const Memories before = hidden_of(longer, part_of(rows, 0, 20)).memory;
    Tiny one = xl(cache);
    one.layers = 1;
    // With one layer what is cached is the normalised embedding, whoever kept it.
    const InfiniTransformer shallow = model_of(one);
    const Hidden whole = hidden_of(shallow, rows);
    const Hidden rest = hidden_of(shallow, part_of(rows, 20, 5), Memories{before[0]});
    EXPECT_LE(relative_error(rest.at(1, 0, 5), whole.at(1, 20, 5)), 1e-12);
    EXPECT_EQ(rest.memory[0].cached.shape(), (Shape{2, cache, 12}));
  }
}

TEST(TransformerXl, ReadsNoPadding) {
  const InfiniTransformer model = model_of(xl());
  Rows rows = rows_of(10);
  std::vector<std::uint8_t> keep(20, 1);
  for (const int padded : {2, 3, 4}) keep[padded] = 0;
  rows.keep = Tensor::of(keep, {2, 10});
  const Hidden before = hidden_of(model, rows);
  rows.tokens.data<std::int32_t>()[4] += 1;
  const Hidden after = hidden_of(model, rows);
  EXPECT_TRUE(same_bytes(after.at(0, 5, 5), before.at(0, 5, 5)));
}

TEST(TransformerXl, WithoutItsCacheReadsTheSegmentAlone) {
  InfiniTransformer model = model_of(xl());
  const Rows rows = rows_of(15);
  model.use_memory(false);
  const Hidden off = hidden_of(model, rows);
  model.use_memory(true);
  const Hidden alone = hidden_of(model, part_of(rows, 5, 5)), on = hidden_of(model, rows);
  EXPECT_LE(relative_error(off.at(0, 5, 5), alone.at(0, 0, 5)), 1e-13);
  EXPECT_GT(relative_error(on.at(0, 5, 5), alone.at(0, 0, 5)), 0.01);
}

TEST(TransformerXl, RefusesGroupsOfSegmentsAndForeignCaches) {
  const InfiniTransformer model = model_of(xl());
  const Memories memory = random_memories(model.config(), 3, DType::kFloat64);
  EXPECT_THAT([&] { hidden_of(model, rows_of(10), memory); },
              ThrowsMessage<Error>("transformer_xl: the cache is [3, 5, 12] in f64, expected [2, "
                                   "M, 12] in f64"));
  expect_no_groups(model,
                   "transformer_xl: a segment needs the one before it; segments in groups "
                   "would not have it");
}

}  // namespace
}  // namespace infini
