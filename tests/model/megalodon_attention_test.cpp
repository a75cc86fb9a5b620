// Megalodon against plain loops over tokens, its gradients through averages and statistics, what
// padding does to them, and what it refuses. That schedules, cuts, blocks computed again and
// generation agree, and who sees whom, is asked of it with the other architectures, see kTinies.
#include "model/megalodon_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <complex>

#include "model/flops.h"
#include "tests/model/architecture_checks.h"

namespace infini {
namespace {

using testing::ThrowsMessage;

Tiny megalodon(int averages = 4, int groups = 0) {
  return {.memory = MemoryRule::kNone,
          .kv_heads = 2,
          .architecture = Architecture::kMegalodon,
          .ema_size = averages,
          .norm_groups = groups};
}

// The model of one row by plain loops, in the letters of megalodon_attention.h.
class PlainMegalodon : public PlainLoops {
 public:
  using PlainLoops::PlainLoops;

  // starts[s]: segment s begins a document; kept[t]: token t is no padding.
  Grid hidden(const std::vector<std::int32_t>& tokens, const std::vector<bool>& starts,
              const std::vector<bool>& kept = {}) const {
    Grid x;
    for (const std::int32_t token : tokens) x.push_back(row("embedding.weight", token));
    for (int layer = 0; layer < config().layers; ++layer) {
      const std::string block = text("blocks.", layer, "."), prefix = block + "attention.";
      const Text text_of{starts, kept};
      const Grid normed = over_time(x, prefix, text_of),
                 averaged = averages(normed, prefix, text_of),
                 attended = attention(normed, averaged, prefix);
      Grid y;
      for (std::size_t t = 0; t < x.size(); ++t)
        y.push_back(sum(sum(x[t], times(prefix + "hidden.weight", averaged[t])), attended[t]));
      // The feed-forward part of y, added to x.
      const Grid both = fed_forward(y, block);
      for (std::size_t t = 0; t < x.size(); ++t)
        for (std::size_t c = 0; c < x[t].size(); ++c) x[t][c] += both[t][c] - y[t][c];
    }
    return norm(x, "final_norm.weight");
  }

 private:
  struct Text {
    const std::vector<bool>&starts, &kept;

    bool begins(std::size_t t, std::int64_t segment) const {
      return t % segment == 0 && starts[t / segment];
    }
    bool counts(std::size_t t) const { return kept.empty() || kept[t]; }
  };
  static double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }
  static double silu(double z) { return z * sigmoid(z); }

  Grid over_time(const Grid& x, const std::string& prefix, const Text& given) const {
    const int width = config().d_model, channels = width / config().timestep_groups();
    const Array weight = values(prefix + "time_norm.weight"),
                bias = values(prefix + "time_norm.bias");
    Grid y = x;
    for (int g = 0; g < config().timestep_groups(); ++g) {
      Array seen;
      for (std::size_t t = 0; t < x.size(); ++t) {
        if (given.begins(t, config().segment_tokens)) seen.clear();
        const auto first = x[t].begin() + g * channels;
        if (given.counts(t)) seen.insert(seen.end(), first, first + channels);
        double mean = 0, variance = 0;
        for (const double each : seen) mean += each / static_cast<double>(seen.size());
        for (const double each : seen)
          variance += (each - mean) * (each - mean) / static_cast<double>(seen.size());
        if (seen.empty()) variance = 1;
        for (int c = g * channels; c < (g + 1) * channels; ++c)
          y[t][c] =
              (x[t][c] - mean) / std::sqrt(variance + config().norm_eps) * weight[c] + bias[c];
      }
    }
    return y;
  }
  Grid averages(const Grid& x, const std::string& prefix, const Text& given) const {
    const int size = config().ema_size;
    const Array alpha = values(prefix + "average.alpha"), delta = values(prefix + "average.delta"),
                frequency = values(prefix + "average.frequency"),
                eta = values(prefix + "average.eta"), skip = values(prefix + "average.skip");
    Grid y = x;
    for (int c = 0; c < config().d_model; ++c) {
      std::vector<std::complex<double>> s(size);
      for (std::size_t t = 0; t < x.size(); ++t) {
        if (given.begins(t, config().segment_tokens)) s.assign(size, 0);
        y[t][c] = skip[c] * x[t][c];
        for (int k = 0; k < size; ++k) {
          const int i = c * size + k;
          const double p = sigmoid(alpha[i]),
                       theta = 2 * std::numbers::pi * (k + 1) / size * sigmoid(frequency[c]);
          if (given.counts(t))
            s[k] = (1 - p * sigmoid(delta[i])) * std::polar(1.0, theta) * s[k] + p * x[t][c];
          y[t][c] += (eta[2 * i] * s[k].real() - eta[2 * i + 1] * s[k].imag()) / std::sqrt(size);
        }
      }
    }
    return y;
  }
  Array heads_of(const Array& z, const std::string& prefix, const std::string& name) const {
    const Array scale = values(prefix + name + "_scale"), shift = values(prefix + name + "_shift");
    Array q = z;
    for (std::size_t c = 0; c < q.size(); ++c) q[c] = z[c] * scale[c] + shift[c];
    return q;
  }
  // What the heads, gated, add.
  Grid attention(const Grid& normed, const Grid& averaged, const std::string& prefix) const {
    const int width = config().head_width();
    const auto segment = static_cast<std::size_t>(config().segment_tokens);
    Grid q, k, v, result;
    for (std::size_t t = 0; t < normed.size(); ++t) {
      Array z = sum(times(prefix + "shared.weight", averaged[t]), values(prefix + "shared.bias"));
      for (int h = 0; h < config().heads; ++h) {
        double square = 0;
        for (int c = h * width; c < (h + 1) * width; ++c) square += z[c] * z[c];
        for (int c = h * width; c < (h + 1) * width; ++c) z[c] /= std::sqrt(square);
      }
      q.push_back(heads_of(z, prefix, "query"));
      k.push_back(heads_of(z, prefix, "key"));
      v.push_back(sum(times(prefix + "value.weight", normed[t]), values(prefix + "value.bias")));
      for (double& each : v.back()) each = silu(each);
    }
    for (std::size_t t = 0; t < q.size(); ++t) {
      const std::size_t begin = t / segment * segment;
      const Array gate =
          sum(times(prefix + "gate.weight", averaged[t]), values(prefix + "gate.bias"));
      Array heads(q[t].size(), 0.0);
      for (int h = 0; h < config().heads; ++h) {
        const Array q_t = turned(q[t], h, static_cast<std::int64_t>(t - begin));
        Array weights;
        double total = 0;
        for (std::size_t u = begin; u <= t; ++u) {
          const Array k_u = turned(k[u], h, static_cast<std::int64_t>(u - begin));
          double score = 0;
          for (int c = 0; c < width; ++c) score += q_t[c] * k_u[c];
          weights.push_back(std::exp(score));
          total += weights.back();
        }
        for (std::size_t u = begin; u <= t; ++u)
          for (int c = h * width; c < (h + 1) * width; ++c)
            heads[c] += weights[u - begin] / total * v[u][c] * silu(gate[c]);
      }
      result.push_back(sum(times(prefix + "output.weight", heads), values(prefix + "output.bias")));
    }
    return result;
  }
};

// A model whose biases and shifts, which start at 0, are something else.
InfiniTransformer moved_model(const Tiny& tiny) {
  InfiniTransformer model = model_of(tiny);
  std::uint32_t site = 0;
  for (const Parameter& parameter : model.parameters().all()) {
    if (parameter.name.find("bias") == std::string::npos &&
        parameter.name.find("shift") == std::string::npos &&
        parameter.name.find("scale") == std::string::npos)
      continue;
    const RandomKey key{.seed = 9, .site = site++};
    for (std::int64_t i = 0; i < parameter.value.size(); ++i)
      parameter.value.data<double>()[i] += 0.3 * key.normal(i);
  }
  return model;
}

class Megalodon : public testing::TestWithParam<Tiny> {};

TEST_P(Megalodon, EqualsPlainLoops) {
  expect_plain_loops<PlainMegalodon>(moved_model(GetParam()), 28);
}

TEST_P(Megalodon, HasTheGradientsOfFiniteDifferences) {
  expect_slopes_through_segments(moved_model(GetParam()));
}

TEST_P(Megalodon, StopsGradientsAtTheHorizon) {
  expect_gradients_stop_at_the_horizon([&] { return moved_model(GetParam()); }, 1e-12);
}

TEST_P(Megalodon, CountsNoPadding) {
  const InfiniTransformer model = moved_model(GetParam());
  Rows rows = rows_of(15);
  std::vector<bool> kept(15, true);
  std::vector<std::uint8_t> keep(30, 1);
  for (const int padded : {2, 4, 8, 9}) {
    kept[padded] = false;
    keep[padded] = keep[15 + padded] = 0;
  }
  rows.keep = Tensor::of(keep, {2, 15});
  const Hidden got = hidden_of(model, rows);
  for (const int b : {0, 1}) {
    const auto expected =
        PlainMegalodon(model).hidden(ids_of(rows, b), {false, false, false}, kept);
    for (std::int64_t t = 0; t < 15; ++t)
      EXPECT_LE(relative_error(got.at(b, t, 1).to_vector<double>(), expected[t]), 1e-12) << t;
  }
  // What stands at the end of a segment as padding is nothing to the next one.
  rows.tokens.data<std::int32_t>()[9] += 1;
  EXPECT_TRUE(same_bytes(hidden_of(model, rows).at(0, 10, 5), got.at(0, 10, 5)));
}

TEST_P(Megalodon, FindsOnlyWhatWasWritten) { expect_only_written_is_read(moved_model(GetParam())); }

TEST_P(Megalodon, SwitchedOffTakesEachSegmentForADocument) {
  InfiniTransformer model = moved_model(GetParam());
  const Rows rows = rows_of(15);
  model.use_memory(false);
  const Hidden off = hidden_of(model, rows);
  model.use_memory(true);
  const Hidden alone = hidden_of(model, part_of(rows, 5, 5)), on = hidden_of(model, rows);
  EXPECT_TRUE(same_bytes(off.at(0, 5, 5), alone.at(0, 0, 5)));
  EXPECT_GT(relative_error(on.at(0, 5, 5), alone.at(0, 0, 5)), 0.01);
}

INSTANTIATE_TEST_SUITE_P(Forms, Megalodon,
                         testing::Values(megalodon(), megalodon(1, 1), megalodon(3, 12),
                                         megalodon(7, 4)),
                         tiny_name);

// Segments longer than the chunks that averages run in.
TEST(MegalodonModel, EqualsPlainLoopsInLongSegments) {
  Tiny tiny = megalodon();
  tiny.layers = 1;
  tiny.segment_tokens = 150;
  const InfiniTransformer model = moved_model(tiny);
  const Rows rows = rows_of(310, 150, 1);
  const Hidden got = hidden_of(model, rows);
  const auto expected = PlainMegalodon(model).hidden(ids_of(rows, 0), {false, false, false});
  for (std::int64_t t = 0; t < 310; ++t)
    EXPECT_LE(relative_error(got.at(0, t, 1).to_vector<double>(), expected[t]), 1e-11) << t;
}

// The statistics of 512 segments are those of all their tokens, and stay so in fp32.
TEST(MegalodonModel, KeepsItsStatisticsOver512Segments) {
  Tiny tiny = megalodon();
  tiny.segment_tokens = 4;
  const Rows rows = rows_of(4 * 512, 4);
  const InfiniTransformer exact = moved_model(tiny);
  tiny.dtype = DType::kFloat32;
  const InfiniTransformer model = model_of(tiny);
  for (const Parameter& parameter : model.parameters().all())
    parameter.value.copy_from(exact.parameters()[parameter.name].value.to(parameter.value.dtype()));
  const Memories nothing = empty_memories(model.config());
  const RowsResult expected = Recurrence(exact, {}).evaluate(rows, nothing, 64),
                   got = Recurrence(model, {}).evaluate(rows, nothing, 64);
  EXPECT_EQ(got.memory[1].norm_tokens.to_vector<float>(), (std::vector<float>{2048, 2048}));
  expect_near(got.memory, expected.memory, 1e-4);
  EXPECT_LE(relative_error(got.nll, expected.nll), 1e-4);
}

TEST(MegalodonModel, NeedsArithmeticForItsAverages) {
  ModelConfig config = config_of(megalodon(4));
  const double few = training_flops_per_token(config);
  config.ema_size = 8;
  EXPECT_EQ(training_flops_per_token(config) - few, 3 * 2 * 14 * 12 * 4);
}

TEST(MegalodonModel, RefusesGroupsOfSegmentsAndForeignMemories) {
  const InfiniTransformer model = model_of(megalodon());
  EXPECT_THAT(
      [&] { hidden_of(model, rows_of(10), random_memories(model.config(), 3, DType::kFloat64)); },
      ThrowsMessage<Error>("megalodon: the averages are [3, 12, 4, 2], expected [2, 12, 4, 2]"));
  expect_no_groups(model,
                   "megalodon: a segment needs the one before it; segments in groups would not "
                   "have it");
}

}  // namespace
}  // namespace infini
