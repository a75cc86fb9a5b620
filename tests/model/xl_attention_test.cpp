// Transformer-XL against plain loops over tokens, its cache, and what it refuses. That schedules,
// cuts, blocks computed again and generation agree, and who sees whom, is asked of it with the
// other architectures, see kTinies.
#include "model/xl_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/plain_loops.h"

namespace infini {
namespace {

using testing::ThrowsMessage;

Tiny xl(std::int64_t cache_tokens = 0, int kv_heads = 2) {
  return {.memory = MemoryRule::kNone,
          .kv_heads = kv_heads,
          .architecture = Architecture::kTransformerXl,
          .cache_tokens = cache_tokens};
}

// The model of one row by plain loops, in the letters of Dai et al. 2019, section 3.3: no packed
// tensors, no caches; a token simply reads all tokens from the cache's length before its segment
// on.
class Plain : public PlainLoops {
 public:
  using PlainLoops::PlainLoops;

  // starts[s]: segment s begins a document.
  Grid hidden(const std::vector<std::int32_t>& tokens, const std::vector<bool>& starts) const {
    Grid h;
    for (const std::int32_t token : tokens) h.push_back(row("embedding.weight", token));
    for (int layer = 0; layer < config().layers; ++layer)
      h = block(h, layer, [&](const Grid& x, const std::string& prefix) {
        return attention(x, prefix, starts);
      });
    return norm(h, "final_norm.weight");
  }

 private:
  Array sinusoid(std::size_t distance) const {
    const int half = config().d_model / 2;
    Array r(config().d_model);
    for (int i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(distance) / std::pow(config().rope_base, i / (0.0 + half));
      r[i] = std::sin(angle);
      r[half + i] = std::cos(angle);
    }
    return r;
  }
  Grid attention(const Grid& x, const std::string& prefix, const std::vector<bool>& starts) const {
    const auto segment = static_cast<std::size_t>(config().segment_tokens);
    const auto cache = static_cast<std::size_t>(config().cached_tokens());
    const int width = config().head_width(), group = config().heads / config().key_value_heads();
    const Array u = values(prefix + "content_bias"), v = values(prefix + "position_bias");
    Grid result;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t begin = i / segment * segment;
      std::size_t first = begin > cache ? begin - cache : 0;
      for (std::size_t s = 0; s <= i / segment; ++s)
        if (starts[s]) first = std::max(first, s * segment);
      const Array q = times(prefix + "query.weight", x[i]);
      Array heads(q.size(), 0.0);
      for (int h = 0; h < config().heads; ++h) {
        const int column = h / group * width;
        Array weights;
        Grid v_j;
        double total = 0;
        for (std::size_t j = first; j <= i; ++j) {
          const Array k = times(prefix + "key.weight", x[j]),
                      r = times(prefix + "position.weight", sinusoid(i - j));
          double score = 0;
          for (int c = 0; c < width; ++c)
            score += (q[h * width + c] + u[h * width + c]) * k[column + c] +
                     (q[h * width + c] + v[h * width + c]) * r[column + c];
          weights.push_back(std::exp(score / std::sqrt(width)));
          total += weights.back();
          v_j.push_back(times(prefix + "value.weight", x[j]));
        }
        for (std::size_t n = 0; n < weights.size(); ++n)
          for (int c = 0; c < width; ++c)
            heads[h * width + c] += weights[n] / total * v_j[n][column + c];
      }
      result.push_back(times(prefix + "output.weight", heads));
    }
    return result;
  }
};

TEST(TransformerXl, EqualsPlainLoops) {
  for (const std::int64_t cache : {0, 1, 3, 7, 12, 40})
    for (const int kv_heads : {1, 2}) {
      SCOPED_TRACE(text("cache ", cache, ", ", kv_heads, " key heads"));
      const InfiniTransformer model = model_of(xl(cache, kv_heads));
      Rows rows = rows_of(23);
      rows.resets = Tensor::of(std::vector<std::uint8_t>{0, 0, 1, 0, 0, 1, 0, 0, 0, 0}, {2, 5});
      const Hidden got = hidden_of(model, rows);
      for (const int b : {0, 1}) {
        const auto ids = rows.tokens.slice(b, 1).to_vector<std::int32_t>();
        const Plain::Grid expected =
            Plain(model).hidden(ids, b == 0 ? std::vector<bool>{false, false, true, false, false}
                                            : std::vector<bool>{true, false, false, false, false});
        for (std::int64_t t = 0; t < 23; ++t)
          EXPECT_LE(relative_error(got.at(b, t, 1).to_vector<double>(), expected[t]), 1e-12) << t;
      }
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
        "attention.position_bias", "feed_forward.up.weight"}) {
    const Parameter& parameter = model.parameters()[text("blocks.0.", name)];
    for (std::int64_t i = 0; i < parameter.value.size(); i += 7) {
      double& value = parameter.value.data<double>()[i];
      const double before = value;
      constexpr double kStep = 1e-5;
      value = before + kStep;
      const double above = recurrence.evaluate(rows, memory, 9).loss.item();
      value = before - kStep;
      const double below = recurrence.evaluate(rows, memory, 9).loss.item();
      value = before;
      EXPECT_NEAR(parameter.gradient.data<double>()[i], (above - below) / (2 * kStep), 1e-6)
          << name << " " << i;
    }
  }
}

// A segment alone, its cache given, has all of the gradient of its loss there is: what a later
// segment reads of it adds nothing to what it computed.
TEST(TransformerXl, StopsGradientsAtTheCache) {
  const Rows rows = rows_of(10);
  const auto gradients = [&](bool together) {
    const InfiniTransformer model = model_of(xl());
    const Recurrence recurrence(model, {});
    Memories memory = empty_memories(model.config());
    if (together) {
      recurrence.train(rows, memory, 1, {});
    } else {
      for (const std::int64_t begin : {0, 5})
        memory = recurrence.train(part_of(rows, begin, 5), memory, 1, {}).memory;
    }
    return model.parameters().gradients().to_vector<double>();
  };
  EXPECT_LE(relative_error(gradients(true), gradients(false)), 1e-13);
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
  EXPECT_THAT(
      [&] {
        Recurrence(model, {.group_segments = 1})
            .train(rows_of(10), empty_memories(model.config()), 1, {});
      },
      ThrowsMessage<Error>("transformer_xl: a segment needs the one before it; segments in groups "
                           "would not have it"));
}

}  // namespace
}  // namespace infini
