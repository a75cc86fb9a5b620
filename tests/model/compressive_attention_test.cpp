// The Compressive Transformer against plain loops over tokens, what trains its compression, and
// what it refuses. That schedules, cuts, blocks computed again and generation agree, and who sees
// whom, is asked of it with the other architectures, see kTinies.
#include "model/compressive_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "tests/model/architecture_checks.h"
#include "tests/model/plain_xl.h"

namespace infini {
namespace {

using testing::ThrowsMessage;

Tiny compressive(std::int64_t cache, std::int64_t compressed, int rate,
                 Compression compression = Compression::kConvolution) {
  return {.memory = MemoryRule::kNone,
          .architecture = Architecture::kCompressiveTransformer,
          .cache_tokens = cache,
          .compressed_tokens = compressed,
          .compression_rate = rate,
          .compression = compression};
}

// With the two queues of Rae et al. 2020, algorithm 1, token by token.
class Plain : public PlainXl {
 public:
  using PlainXl::PlainXl;

  // The sum over layers, segments, queries and numbers of what is lost of attention over the tokens
  // that leave (algorithm 2).
  double lost(const std::vector<std::int32_t>& tokens, const std::vector<bool>& starts) const {
    lost_ = 0;
    hidden(tokens, starts);
    return lost_;
  }

 private:
  struct Queues {
    std::deque<std::optional<Array>> memory, compressed, leaving;
    Context windows;
  };
  // Segments [0, count) of x have gone by.
  Queues after(const Reader& at, std::size_t count) const {
    const auto segment = static_cast<std::size_t>(config_.segment_tokens);
    const auto rate = static_cast<std::size_t>(config_.compression_rate);
    Queues queues{.memory = std::deque<std::optional<Array>>(config_.cached_tokens()),
                  .compressed = std::deque<std::optional<Array>>(config_.compressed_rows()),
                  .leaving = {},
                  .windows = {}};
    for (std::size_t s = 0; s <= count; ++s) {
      if (at.starts[s]) {
        std::ranges::fill(queues.memory, std::nullopt);
        std::ranges::fill(queues.compressed, std::nullopt);
      }
      if (s == count) break;
      const std::size_t tokens = std::min(segment, at.x.size() - s * segment);
      queues.leaving.clear();
      queues.windows.clear();
      for (std::size_t t = 0; t < tokens; ++t) {
        queues.leaving.push_back(queues.memory.front());
        queues.memory.pop_front();
        queues.memory.push_back(at.x[s * segment + t]);
      }
      for (std::size_t w = 0; (w + 1) * rate <= tokens; ++w) {
        queues.windows.push_back(window(at, queues.leaving, w * rate, rate));
        queues.compressed.pop_front();
        queues.compressed.push_back(queues.windows.back());
      }
      queues.leaving.resize(tokens / rate * rate);
    }
    return queues;
  }
  std::optional<Array> window(const Reader& at, const std::deque<std::optional<Array>>& leaving,
                              std::size_t first, std::size_t rate) const {
    Array joined, mean(config_.d_model, 0.0);
    for (std::size_t i = first; i < first + rate; ++i) {
      if (!leaving[i]) return std::nullopt;
      joined.insert(joined.end(), leaving[i]->begin(), leaving[i]->end());
      for (int c = 0; c < config_.d_model; ++c) mean[c] += (*leaving[i])[c] / double(rate);
    }
    if (config_.compression == Compression::kMeanPool) return mean;
    return times(at.prefix + "compression.weight", joined);
  }
  Context context(const Reader& at) const override {
    const Queues queues = after(at, at.i / static_cast<std::size_t>(config_.segment_tokens));
    Context places(queues.compressed.begin(), queues.compressed.end());
    places.insert(places.end(), queues.memory.begin(), queues.memory.end());
    return places;
  }

  Array read(const Reader& at, std::size_t i, int head, const Context& places) const {
    const int width = config_.head_width(),
              key_head = head / (config_.heads / config_.key_value_heads());
    const Array q = times(at.prefix + "query.weight", at.x[i]);
    Array y(width, 0.0);
    double total = 0;
    for (const std::optional<Array>& place : places) {
      if (!place) continue;
      const Array k = times(at.prefix + "key.weight", *place),
                  v = times(at.prefix + "value.weight", *place);
      double score = 0;
      for (int c = 0; c < width; ++c) score += q[head * width + c] * k[key_head * width + c];
      const double weight = std::exp(score / std::sqrt(width));
      total += weight;
      for (int c = 0; c < width; ++c) y[c] += weight * v[key_head * width + c];
    }
    for (double& value : y) value /= total > 0 ? total : 1;
    return y;
  }
  void taken(const Reader& at) const override {
    const auto segment = static_cast<std::size_t>(config_.segment_tokens);
    for (std::size_t s = 0; s * segment < at.x.size(); ++s) {
      const Queues queues = after(at, s + 1);
      const Context leaving(queues.leaving.begin(), queues.leaving.end());
      for (std::size_t i = s * segment; i < std::min(at.x.size(), (s + 1) * segment); ++i)
        for (int head = 0; head < config_.heads; ++head) {
          const Array whole = read(at, i, head, leaving), part = read(at, i, head, queues.windows);
          for (std::size_t c = 0; c < whole.size(); ++c)
            lost_ += (part[c] - whole[c]) * (part[c] - whole[c]);
        }
    }
  }

  mutable double lost_ = 0;
};

TEST(CompressiveTransformer, EqualsPlainLoops) {
  for (const std::int64_t cache : {0, 5, 7, 12})
    for (const std::int64_t compressed : {1, 4, 9})
      for (const int rate : {1, 2, 4})
        for (const Compression compression : {Compression::kConvolution, Compression::kMeanPool}) {
          SCOPED_TRACE(text(cache, " tokens, ", compressed, " rows of ", rate));
          Tiny tiny = compressive(cache, compressed, rate, compression);
          tiny.kv_heads = rate == 2 ? 1 : 2;
          const InfiniTransformer model = model_of(tiny);
          expect_plain_loops<Plain>(model, 28);
        }
}

// With one layer, what leaves the memory does not depend on the compression.
TEST(CompressiveTransformer, LearnsItsCompressionFromTheReconstructionOfAttention) {
  for (const int rate : {2, 3})
    for (const RowSchedule schedule : {RowSchedule::kParallel, RowSchedule::kStreaming}) {
      Tiny tiny = compressive(7, 4, rate);
      tiny.layers = 1;
      tiny.kv_heads = rate == 2 ? 1 : 2;
      tiny.reconstruction_weight = 0.7;
      const InfiniTransformer model = model_of(tiny);
      const Rows rows = rows_with_starts(28);
      Recurrence(model, {.schedule = schedule, .segments_per_tape = 2})
          .train(rows, empty_memories(model.config()), 0.1, {});
      const auto lost = [&] {
        const Plain plain(model);
        return plain.lost(ids_of(rows, 0), kStarts[0]) + plain.lost(ids_of(rows, 1), kStarts[1]);
      };
      const Parameter& weight = model.parameters()["blocks.0.attention.compression.weight"];
      double largest = 0;
      for (std::int64_t i = 0; i < weight.value.size(); i += 11) {
        // The mean over 12 numbers of the heads.
        const double expected = 0.1 * 0.7 / 12 * slope(weight.value.data<double>()[i], lost);
        EXPECT_NEAR(weight.gradient.data<double>()[i], expected, 1e-7) << i;
        largest = std::max(largest, std::abs(expected));
      }
      EXPECT_GT(largest, 1e-3);
    }
}

TEST(CompressiveTransformer, TrainsNothingElseByTheReconstruction) {
  for (const bool recompute : {false, true}) {
    const auto trained = [&](double weight) {
      Tiny tiny = compressive(0, 0, 2);
      tiny.reconstruction_weight = weight;
      InfiniTransformer model = model_of(tiny);
      const RowsResult result = Recurrence(model, {.recompute_blocks = recompute})
                                    .train(rich_rows(), empty_memories(model.config()), 1, {});
      return std::pair(std::move(model), result);
    };
    const auto [without, loss_without] = trained(0);
    const auto [with, loss_with] = trained(1);
    EXPECT_EQ(loss_with.loss.item(), loss_without.loss.item());
    for (std::size_t i = 0; i < with.parameters().all().size(); ++i) {
      const Parameter &a = with.parameters().all()[i], &b = without.parameters().all()[i];
      if (!a.name.ends_with("compression.weight")) {
        EXPECT_TRUE(same_bytes(a.gradient, b.gradient)) << a.name;
        continue;
      }
      EXPECT_THAT(b.gradient.to_vector<double>(), testing::Each(0)) << "by the language model";
      EXPECT_THAT(a.gradient.to_vector<double>(), testing::Contains(testing::Ne(0)));
    }
  }
}

// With one layer and one segment nothing that differences move is in a memory.
TEST(CompressiveTransformer, HasTheGradientsOfFiniteDifferences) {
  Tiny tiny = compressive(7, 4, 2);
  tiny.layers = 1;
  tiny.kv_heads = 1;
  const InfiniTransformer model = model_of(tiny);
  const Rows rows = rows_of(5);
  const Memories memory = random_memories(model.config(), 2, DType::kFloat64);
  const Recurrence recurrence(model, {});
  recurrence.train(rows, memory, 1, {});
  for (const Parameter& parameter : model.parameters().all()) {
    if (parameter.name.ends_with("compression.weight")) continue;
    expect_slopes(recurrence, rows, memory, parameter, 5, 1e-6);
  }
}

TEST(CompressiveTransformer, ReadsARowInPiecesToTheSameBytes) {
  for (const int rate : {2, 4})  // of 4, the ragged segment's 3 tokens are no window
    expect_same_bytes_in_pieces(compressive(7, 4, rate));
}

TEST(CompressiveTransformer, RemembersCompressedWhatLeftTheMemory) {
  Tiny tiny = compressive(5, 2, 2);
  tiny.layers = 1;
  const InfiniTransformer model = model_of(tiny);
  const Rows rows = rows_of(20);
  const Hidden before = hidden_of(model, rows);
  const auto sees = [&](int t) {
    std::int32_t& token = rows.tokens.data<std::int32_t>()[t];
    const std::int32_t usual = token;
    token = (usual + 1) % 23;
    const Hidden after = hidden_of(model, rows);
    token = usual;
    return !same_bytes(after.at(0, 15, 1), before.at(0, 15, 1));
  };
  // The memory holds 10 to 14, two rows the windows of 5 to 8; 9 was left over.
  for (int t = 0; t < 15; ++t) EXPECT_EQ(sees(t), t >= 5 && t != 9) << t;
}

TEST(CompressiveTransformer, TakesTheNewestRowsOfMemoriesOfOtherLengths) {
  const Rows rows = rows_of(40);
  const auto one_layer = [](std::int64_t compressed) {
    Tiny tiny = compressive(5, compressed, 2);
    tiny.layers = 1;
    return model_of(tiny);
  };
  const Memories before = hidden_of(one_layer(12), part_of(rows, 0, 35)).memory;
  for (const std::int64_t compressed : {3, 12, 20}) {
    const InfiniTransformer model = one_layer(compressed);
    const Hidden whole = hidden_of(model, rows),
                 rest = hidden_of(model, part_of(rows, 35, 5), before);
    EXPECT_LE(relative_error(rest.at(1, 0, 5), whole.at(1, 35, 5)), 1e-12) << compressed;
    EXPECT_EQ(rest.memory[0].compressed.shape(), (Shape{2, compressed, 12}));
  }
}

TEST(CompressiveTransformer, ReadsNoPadding) {
  const InfiniTransformer model = model_of(compressive(5, 8, 2));
  Rows rows = rows_of(20);
  std::vector<std::uint8_t> keep(40, 1);
  for (const int padded : {2, 3, 4}) keep[padded] = 0;
  rows.keep = Tensor::of(keep, {2, 20});
  const Hidden before = hidden_of(model, rows);
  rows.tokens.data<std::int32_t>()[3] += 1;
  const Hidden after = hidden_of(model, rows);
  EXPECT_TRUE(same_bytes(after.at(0, 5, 15), before.at(0, 5, 15)));
}

TEST(CompressiveTransformer, WithoutItsMemoriesReadsTheSegmentAlone) {
  InfiniTransformer model = model_of(compressive(0, 0, 2));
  const Rows rows = rows_of(15);
  model.use_memory(false);
  const Hidden off = hidden_of(model, rows), alone = hidden_of(model, part_of(rows, 10, 5));
  model.use_memory(true);
  EXPECT_LE(relative_error(off.at(0, 10, 5), alone.at(0, 0, 5)), 1e-13);
  EXPECT_GT(relative_error(hidden_of(model, rows).at(0, 10, 5), alone.at(0, 0, 5)), 0.01);
}

TEST(CompressiveTransformer, RefusesGroupsOfSegmentsAndForeignMemories) {
  const InfiniTransformer model = model_of(compressive(0, 0, 2));
  Memories memory = random_memories(model.config(), 2, DType::kFloat64);
  memory[1].compressed = Tensor::zeros({2, 5, 7}, DType::kFloat64);
  EXPECT_THAT([&] { hidden_of(model, rows_of(10), memory); },
              ThrowsMessage<Error>("compressive_transformer: the cache is [2, 5, 7] in f64, "
                                   "expected [2, M, 12] in f64"));
  expect_no_groups(model,
                   "compressive_transformer: a segment needs the one before it; segments "
                   "in groups would not have it");
}

}  // namespace
}  // namespace infini
