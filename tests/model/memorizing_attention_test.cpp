// The Memorizing Transformer against plain loops over tokens, its memory, and what it refuses. That
// schedules, cuts, blocks computed again and generation agree, and who sees whom, is asked of it
// with the other architectures, see kTinies.
#include "model/memorizing_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/architecture_checks.h"
#include "tests/model/plain_xl.h"

namespace infini {
namespace {

using testing::ThrowsMessage;

Tiny memorizing(std::int64_t retrieval_tokens, int neighbours, int kv_heads = 2) {
  return {.memory = MemoryRule::kNone,
          .kv_heads = kv_heads,
          .architecture = Architecture::kMemorizingTransformer,
          .retrieval_tokens = retrieval_tokens,
          .neighbours = neighbours};
}

// With what Wu et al. 2022, section 3.1, add in one layer: of all tokens of the document before the
// segment the newest N, of these the nearest.
class Plain : public PlainXl {
 public:
  using PlainXl::PlainXl;

 private:
  Array unit(Array x) const {
    double square = kLengthEps;
    for (const double value : x) square += value * value;
    for (double& value : x) value /= std::sqrt(square);
    return x;
  }
  Array part(const Reader& at, const char* name, std::size_t token, int head) const {
    const Array all = times(at.prefix + name, at.x[token]);
    const int width = config_.head_width();
    return {all.begin() + head * width, all.begin() + (head + 1) * width};
  }
  Array mixed(const Reader& at, const Array& local) const override {
    if (at.layer != (config_.retrieval_layer ? config_.retrieval_layer - 1 : 0)) return local;
    const auto segment = static_cast<std::size_t>(config_.segment_tokens);
    const auto kept = static_cast<std::size_t>(config_.retrieval_tokens);
    const std::size_t end = at.i / segment * segment;
    const int key_head = at.head / (config_.heads / config_.key_value_heads());
    const double scale = values(at.prefix + "retrieval_scale")[at.head];
    double gate = 1 / (1 + std::exp(-values(at.prefix + "gate")[at.head]));

    const Array q = unit(part(at, "query.weight", at.i, at.head));
    std::vector<std::pair<double, std::size_t>> nearest;
    for (std::size_t j = std::max(at.document, end > kept ? end - kept : 0); j < end; ++j) {
      const Array k = unit(part(at, "key.weight", j, key_head));
      double score = 0;
      for (std::size_t c = 0; c < k.size(); ++c) score += q[c] * k[c];
      nearest.emplace_back(-score, j);
    }
    std::ranges::sort(nearest);
    if (nearest.size() > static_cast<std::size_t>(config_.neighbours))
      nearest.resize(config_.neighbours);
    double total = 0;
    for (const auto& [score, j] : nearest) total += std::exp(-scale * score);
    Array result(local.size(), 0.0);
    if (nearest.empty() && config_.first_segment == FirstSegment::kBypass) gate = 0;
    for (const auto& [score, j] : nearest) {
      const Array v = part(at, "value.weight", j, key_head);
      for (std::size_t c = 0; c < v.size(); ++c)
        result[c] += gate * std::exp(-scale * score) / total * v[c];
    }
    for (std::size_t c = 0; c < local.size(); ++c) result[c] += (1 - gate) * local[c];
    return result;
  }
};

// Scales far from 1, so that the softmax over neighbours matters.
void spread_scales(const InfiniTransformer& model) {
  for (const Parameter& parameter : model.parameters().all())
    if (parameter.name.ends_with("retrieval_scale"))
      for (std::int64_t i = 0; i < parameter.value.size(); ++i)
        parameter.value.data<double>()[i] = 2.5 - 1.75 * static_cast<double>(i);
}

TEST(MemorizingTransformer, EqualsPlainLoops) {
  for (const std::int64_t memory : {1, 4, 12, 40})
    for (const int neighbours : {1, 3, 40})
      for (const int kv_heads : {1, 2}) {
        SCOPED_TRACE(text(neighbours, " of ", memory, ", ", kv_heads, " key heads"));
        Tiny tiny = memorizing(memory, neighbours, kv_heads);
        tiny.first_segment = neighbours == 3 ? FirstSegment::kBypass : FirstSegment::kGated;
        tiny.retrieval_layer = kv_heads;
        const InfiniTransformer model = model_of(tiny);
        spread_scales(model);
        expect_plain_loops<Plain>(model, 23);
      }
}

// With one layer and one segment nothing that differences move is in the memory.
TEST(MemorizingTransformer, HasTheGradientsOfFiniteDifferences) {
  for (const int neighbours : {3, 40}) {
    Tiny tiny = memorizing(11, neighbours, 1);
    tiny.layers = 1;
    const InfiniTransformer model = model_of(tiny);
    spread_scales(model);
    const Rows rows = rows_of(5);
    const Memories memory = random_memories(model.config(), 2, DType::kFloat64);
    const Recurrence recurrence(model, {});
    recurrence.train(rows, memory, 1, {});
    for (const Parameter& parameter : model.parameters().all())
      expect_slopes(recurrence, rows, memory, parameter, 5, 1e-6);
    for (const char* name : {"blocks.0.attention.gate", "blocks.0.attention.retrieval_scale"})
      for (const double gradient : model.parameters()[name].gradient.to_vector<double>())
        EXPECT_GT(std::abs(gradient), 1e-4) << name;
  }
}

// What a later segment finds of this one in the memory adds nothing to its gradient.
TEST(MemorizingTransformer, StopsGradientsAtTheMemory) {
  const auto model = [] { return model_of(memorizing(9, 3)); };
  const Rows rows = rows_of(10);
  EXPECT_LE(
      relative_error(gradients_of_rows(model(), rows, 0), gradients_of_segments(model(), rows)),
      1e-13);
}

TEST(MemorizingTransformer, ReadsARowInPiecesToTheSameBytes) {
  expect_same_bytes_in_pieces(memorizing(12, 4));
}

TEST(MemorizingTransformer, RemembersNoMoreThanTheNewestTokens) {
  Tiny tiny = memorizing(7, 40);
  tiny.layers = 1;
  tiny.cache_tokens = 1;
  const InfiniTransformer model = model_of(tiny);
  const Rows rows = rows_of(15);
  const Hidden before = hidden_of(model, rows);
  EXPECT_EQ(before.memory[0].pairs.shape(), (Shape{2, 7, 24}));
  const auto sees = [&](int t) {
    std::int32_t& token = rows.tokens.data<std::int32_t>()[t];
    const std::int32_t usual = token;
    token = (usual + 1) % 23;
    const Hidden after = hidden_of(model, rows);
    token = usual;
    return !same_bytes(after.at(0, 10, 1), before.at(0, 10, 1));
  };
  for (int t = 0; t < 10; ++t) EXPECT_EQ(sees(t), t >= 3) << t;
}

// Evaluation may remember more than training did, or less.
TEST(MemorizingTransformer, TakesTheNewestTokensOfAMemoryOfAnotherLength) {
  const Rows rows = rows_of(25);
  const auto one_layer = [](std::int64_t memory) {
    Tiny tiny = memorizing(memory, 3);
    tiny.layers = 1;
    return model_of(tiny);
  };
  const Memories before = hidden_of(one_layer(20), part_of(rows, 0, 20)).memory;
  for (const std::int64_t memory : {2, 11, 30}) {
    const InfiniTransformer model = one_layer(memory);
    const Hidden whole = hidden_of(model, rows),
                 rest = hidden_of(model, part_of(rows, 20, 5), before);
    EXPECT_LE(relative_error(rest.at(1, 0, 5), whole.at(1, 20, 5)), 1e-12) << memory;
    EXPECT_EQ(rest.memory[0].pairs.shape(), (Shape{2, memory, 24}));
  }
}

TEST(MemorizingTransformer, ReadsNoPadding) {
  const InfiniTransformer model = model_of(memorizing(20, 40));
  Rows rows = rows_of(15);
  std::vector<std::uint8_t> keep(30, 1);
  for (const int padded : {2, 3, 4}) keep[padded] = 0;
  rows.keep = Tensor::of(keep, {2, 15});
  const Hidden before = hidden_of(model, rows);
  rows.tokens.data<std::int32_t>()[4] += 1;
  const Hidden after = hidden_of(model, rows);
  EXPECT_TRUE(same_bytes(after.at(0, 5, 10), before.at(0, 5, 10)));
}

TEST(MemorizingTransformer, WithTheGateClosedIsTransformerXl) {
  for (const DType dtype : {DType::kFloat64, DType::kBFloat16}) {
    Tiny tiny = memorizing(12, 3);
    tiny.dtype = dtype;
    Tiny local = tiny;
    local.architecture = Architecture::kTransformerXl;
    local.retrieval_tokens = 0;
    const Hidden expected = hidden_of(model_of(local), rich_rows());
    const Hidden open = hidden_of(model_of(tiny), rich_rows());
    tiny.gate_mean = -1000;
    EXPECT_TRUE(same_bytes(hidden_of(model_of(tiny), rich_rows()).states, expected.states));
    EXPECT_GT(relative_error(open.states, expected.states), 0.01);
  }
}

TEST(MemorizingTransformer, WithoutItsMemoryReadsTheSegmentAlone) {
  InfiniTransformer model = model_of(memorizing(12, 3));
  const Rows rows = rows_of(15);
  model.use_memory(false);
  const Hidden off = hidden_of(model, rows), alone = hidden_of(model, part_of(rows, 5, 5));
  model.use_memory(true);
  EXPECT_LE(relative_error(off.at(0, 5, 5), alone.at(0, 0, 5)), 1e-13);
  EXPECT_GT(relative_error(hidden_of(model, rows).at(0, 5, 5), alone.at(0, 0, 5)), 0.01);
}

TEST(MemorizingTransformer, HasItsMemoryInOneBlock) {
  const auto block_of = [](int layers, int retrieval_layer) {
    Tiny tiny = memorizing(5, 3);
    tiny.layers = layers;
    tiny.retrieval_layer = retrieval_layer;
    const Memories memory = zero_memories(config_of(tiny), 1, DType::kFloat32, Device::kCpu);
    std::string blocks;
    for (std::size_t layer = 0; layer < memory.size(); ++layer) {
      const bool has_gate =
          std::ranges::any_of(parameter_specs(config_of(tiny)), [&](const ParameterSpec& spec) {
            return spec.name == text("blocks.", layer, ".attention.gate");
          });
      EXPECT_EQ(bool(memory[layer].pairs), has_gate);
      EXPECT_TRUE(memory[layer].cached);
      if (has_gate) blocks += text(layer, " ");
    }
    return blocks;
  };
  EXPECT_EQ(block_of(12, 0), "8 ");  // the 9th of 12
  EXPECT_EQ(block_of(12, 12), "11 ");
  EXPECT_EQ(block_of(2, 0), "0 ");
}

TEST(MemorizingTransformer, RefusesGroupsOfSegmentsAndForeignMemories) {
  const InfiniTransformer model = model_of(memorizing(8, 3));
  Memories memory = random_memories(model.config(), 2, DType::kFloat64);
  memory[0].pairs = Tensor::zeros({2, 8, 12}, DType::kFloat64);
  EXPECT_THAT([&] { hidden_of(model, rows_of(10), memory); },
              ThrowsMessage<Error>("memorizing_transformer: the cache is [2, 8, 12] in f64, "
                                   "expected [2, M, 24] in f64"));
  memory[0].pairs = Tensor::zeros({2, 7, 24}, DType::kFloat64);
  EXPECT_THAT([&] { hidden_of(model, rows_of(10), memory); },
              ThrowsMessage<Error>("memorizing_transformer: the cache is [2, 7, 24], its marks are "
                                   "[2, 8]"));
  expect_no_groups(model,
                   "memorizing_transformer: a segment needs the one before it; segments in "
                   "groups would not have it");
}

}  // namespace
}  // namespace infini
