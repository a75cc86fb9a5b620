// TransformerFAM against plain loops over tokens, its gradients through the window and the
// feedback, and what it refuses. That schedules, cuts, blocks computed again and generation agree,
// and who sees whom, is asked of it with the other architectures, see kTinies.
#include "model/feedback_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/flops.h"
#include "tests/model/architecture_checks.h"

namespace infini {
namespace {

using testing::ThrowsMessage;

Tiny fam(std::int64_t vectors = 3, std::int64_t cache_tokens = 0, int kv_heads = 2) {
  return {.memory = MemoryRule::kNone,
          .kv_heads = kv_heads,
          .architecture = Architecture::kTransformerFam,
          .cache_tokens = cache_tokens,
          .memory_tokens = vectors};
}

// The model of one row by plain loops, layer after layer: positions are those of the text, and
// vectors stand in the last places of the segment that they read.
class PlainFam : public PlainLoops {
 public:
  using PlainLoops::PlainLoops;

  // starts[s]: segment s begins a document; kept[t]: token t is no padding.
  Grid hidden(const std::vector<std::int32_t>& tokens, const std::vector<bool>& starts,
              const std::vector<bool>& kept = {}) const {
    const auto segment = static_cast<std::int64_t>(config().segment_tokens),
               cache = config().cached_tokens(), count = static_cast<std::int64_t>(tokens.size());
    Grid h, prompt;
    for (const std::int32_t token : tokens) h.push_back(row("embedding.weight", token));
    for (std::int64_t f = 0; f < config().memory_tokens; ++f)
      prompt.push_back(row("memory_tokens.weight", f));
    for (int layer = 0; layer < config().layers; ++layer) {
      const std::string prefix = text("blocks.", layer, ".");
      const auto taken = [&](const Grid& x) { return norm(x, prefix + "attention_norm.weight"); };
      const Grid x = taken(h);
      Grid next, vectors;
      std::int64_t document = 0;
      for (std::int64_t begin = 0; begin < count; begin += segment) {
        const std::int64_t end = std::min(begin + segment, count);
        const bool starting = begin == 0 || starts[begin / segment];
        if (starting) document = begin;
        const Grid found = taken(starting ? prompt : vectors);
        std::vector<Place> fed, window, own;
        for (std::size_t f = 0; f < found.size(); ++f)
          fed.push_back({found[f], begin - config().memory_tokens + static_cast<std::int64_t>(f)});
        for (std::int64_t t = std::max(document, begin - cache); t < begin; ++t)
          if (kept.empty() || kept[t]) window.push_back({x[t], t});
        for (std::int64_t t = begin; t < end; ++t)
          if (kept.empty() || kept[t]) own.push_back({x[t], t});

        Grid attended;
        for (std::int64_t t = begin; t < end; ++t) {
          std::vector<Place> read = window;
          read.insert(read.end(), fed.begin(), fed.end());
          for (std::int64_t u = begin; u <= t; ++u) read.push_back({x[u], u});
          attended.push_back(sum(h[t], reads({x[t], t}, read, prefix)));
        }
        const Grid after = fed_forward(attended, prefix);
        next.insert(next.end(), after.begin(), after.end());

        Grid renewed;
        own.insert(own.begin(), fed.begin(), fed.end());
        for (std::size_t f = 0; f < found.size(); ++f) {
          const Array read = reads(
              {found[f], end - config().memory_tokens + static_cast<std::int64_t>(f)}, own, prefix);
          renewed.push_back(starting ? read : sum(vectors[f], read));
        }
        vectors = fed_forward(renewed, prefix);
      }
      h = next;
      // The prompt goes up by itself.
      const Grid given = taken(prompt);
      std::vector<Place> all;
      for (std::size_t f = 0; f < given.size(); ++f)
        all.push_back({given[f], static_cast<std::int64_t>(f)});
      for (std::size_t f = 0; f < given.size(); ++f)
        prompt[f] = sum(prompt[f], reads(all[f], all, prefix));
      prompt = fed_forward(prompt, prefix);
    }
    return norm(h, "final_norm.weight");
  }

 private:
  struct Place {
    Array x;
    std::int64_t position;
  };
  Array reads(const Place& query, const std::vector<Place>& places,
              const std::string& block) const {
    const std::string prefix = block + "attention.";
    const int width = config().head_width(), group = config().heads / config().key_value_heads();
    const Array q = times(prefix + "query.weight", query.x);
    Array heads(q.size(), 0.0);
    for (int h = 0; h < config().heads; ++h) {
      const Array turned_q = turned(q, h, query.position);
      double total = 0;
      Array sums(width, 0.0);
      for (const Place& place : places) {
        const Array k = turned(times(prefix + "key.weight", place.x), h / group, place.position),
                    v = times(prefix + "value.weight", place.x);
        double score = 0;
        for (int c = 0; c < width; ++c) score += turned_q[c] * k[c];
        const double weight = std::exp(score / std::sqrt(width));
        total += weight;
        for (int c = 0; c < width; ++c) sums[c] += weight * v[h / group * width + c];
      }
      for (int c = 0; c < width; ++c) heads[h * width + c] = sums[c] / total;
    }
    return times(prefix + "output.weight", heads);
  }
};

class TransformerFam : public testing::TestWithParam<Tiny> {};

TEST_P(TransformerFam, EqualsPlainLoops) { expect_plain_loops<PlainFam>(model_of(GetParam()), 28); }

TEST_P(TransformerFam, ReadsNoPadding) {
  const InfiniTransformer model = model_of(GetParam());
  Rows rows = rows_of(15);
  std::vector<bool> kept(15, true);
  std::vector<std::uint8_t> keep(30, 1);
  for (const int padded : {2, 4, 8}) {
    kept[padded] = false;
    keep[padded] = keep[15 + padded] = 0;
  }
  rows.keep = Tensor::of(keep, {2, 15});
  const Hidden got = hidden_of(model, rows);
  for (const int b : {0, 1}) {
    const auto expected = PlainFam(model).hidden(ids_of(rows, b), {false, false, false}, kept);
    for (std::int64_t t = 0; t < 15; ++t)
      EXPECT_LE(relative_error(got.at(b, t, 1).to_vector<double>(), expected[t]), 1e-12) << t;
  }
}

// The prompt among them; nothing is stopped at the window.
TEST_P(TransformerFam, HasTheGradientsOfFiniteDifferences) {
  expect_slopes_through_segments(model_of(GetParam()));
}

TEST_P(TransformerFam, StopsGradientsAtTheHorizon) {
  expect_gradients_stop_at_the_horizon([&] { return model_of(GetParam()); });
}

TEST_P(TransformerFam, FindsOnlyWhatWasWritten) {
  expect_only_written_is_read(model_of(GetParam()));
}

TEST_P(TransformerFam, SwitchedOffLeavesEachSegmentAlone) {
  InfiniTransformer model = model_of(GetParam());
  Tiny tiny = GetParam();
  tiny.architecture = Architecture::kInfini;
  tiny.memory_tokens = tiny.cache_tokens = 0;
  const InfiniTransformer local = model_of(tiny);
  for (const Parameter& parameter : local.parameters().all())
    parameter.value.copy_from(model.parameters()[parameter.name].value);
  const Rows rows = rows_of(15);
  EXPECT_GT(relative_error(hidden_of(model, rows).states, hidden_of(local, rows).states), 0.01);
  model.use_memory(false);
  EXPECT_LE(relative_error(hidden_of(model, rows).states, hidden_of(local, rows).states), 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Forms, TransformerFam,
                         testing::Values(fam(), fam(1, 0, 1), fam(3, 2, 2), fam(2, 12, 1),
                                         fam(7, 3, 2), fam(4, 5, 1)),
                         tiny_name);

// What a document starts from is learned, and read before anything else is.
TEST(Feedback, StartsFromItsPrompt) {
  const InfiniTransformer model = model_of(fam());
  const Rows rows = rows_of(10);
  const Hidden before = hidden_of(model, rows);
  model.parameters()["memory_tokens.weight"].value.data<double>()[0] += 1;
  const Hidden after = hidden_of(model, rows);
  EXPECT_GT(relative_error(after.at(0, 0, 5), before.at(0, 0, 5)), 1e-3);
}

// What stands far before the window comes through the feedback alone.
TEST(Feedback, RemembersWhatLeftItsWindow) {
  Tiny tiny = fam(3, 1);
  tiny.layers = 1;
  const InfiniTransformer model = model_of(tiny);
  const Rows rows = rows_of(30);
  const Hidden before = hidden_of(model, rows);
  rows.tokens.data<std::int32_t>()[1] += 1;
  EXPECT_GT(relative_error(hidden_of(model, rows).at(0, 25, 5), before.at(0, 25, 5)), 1e-9);
}

TEST(Feedback, NeedsMoreArithmeticThanItsBlocksAlone) {
  ModelConfig config = config_of(fam()), local = config;
  local.architecture = Architecture::kInfini;
  local.memory_tokens = 0;
  const double alone = training_flops_per_token(local);
  EXPECT_GT(training_flops_per_token(config), 1.2 * alone);
  config.cache_tokens = 50;
  EXPECT_GT(training_flops_per_token(config), 2 * alone);
}

TEST(Feedback, RefusesGroupsOfSegmentsAndForeignMemories) {
  const InfiniTransformer model = model_of(fam());
  const Memories batch = random_memories(model.config(), 3, DType::kFloat64),
                 other = random_memories(config_of(fam(4)), 2, DType::kFloat64);
  EXPECT_THAT([&] { hidden_of(model, rows_of(10), batch); },
              ThrowsMessage<Error>("transformer_fam: the window is [3, 5, 24] in f64, expected [2, "
                                   "5, 24] in f64"));
  EXPECT_THAT([&] { hidden_of(model, rows_of(10), other); },
              ThrowsMessage<Error>("transformer_fam: the feedback is [2, 4, 12] in f64, expected "
                                   "[2, 3, 12] in f64"));
  expect_no_groups(model,
                   "transformer_fam: a segment needs the one before it; segments in groups would "
                   "not have it");
}

}  // namespace
}  // namespace infini
