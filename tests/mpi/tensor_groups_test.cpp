// Ranks that each have some heads, feed-forward columns and token ids of a model compute what one
// rank computes with all of it.
#include <gmock/gmock.h>

#include "model/decoder.h"
#include "tensor/tensor_group.h"
#include "tests/model/tiny_model.h"
#include "tests/mpi/ranks.h"
#include "trainer/rank_exchange.h"

namespace infini {
namespace {

// Eight query heads, and 24 token ids.
ModelConfig shared_config(const Tiny& tiny) {
  ModelConfig config = config_of(tiny);
  config.heads = 8;
  config.kv_heads = 4 * tiny.kv_heads;
  config.vocabulary = 24;
  return config;
}

// The part of a whole tensor that a division names.
Tensor part_of(const Tensor& whole, const Division& division, const Shape& shape) {
  const Tensor part = Tensor::empty(shape, whole.dtype());
  for (std::int64_t i = 0; i < part.size(); ++i)
    part.data<double>()[i] = whole.data<double>()[division.place(shape, i)];
  return part;
}

// The heads of this rank.
Memories heads_of(const Memories& memories, const TensorGroup& group) {
  const auto cut = [&](const Tensor& state) {
    if (!state) return Tensor{};
    const Division division{.axis = 1, .count = group.count(), .index = group.index()};
    std::vector<std::int64_t> extents(state.shape().begin(), state.shape().end());
    extents[1] /= group.count();
    return part_of(state, division, Shape(extents));
  };
  Memories part;
  for (const MemoryState& state : memories)
    part.push_back({.matrix = cut(state.matrix), .normalizer = cut(state.normalizer)});
  return part;
}

struct Trained {
  double loss = 0;
  Tensor nll;
  Parameters parameters;
  Memories after, dmemory;
};

Trained train(const ModelConfig& config, const Rows& rows, const RecurrenceOptions& options,
              const TensorGroup* group) {
  InfiniTransformer model(config, DType::kFloat64, Device::kCpu, group);
  model.parameters().initialise(1);
  Memories memory = config.memory == MemoryRule::kNone
                        ? empty_memories(config)
                        : random_memories(config, rows.batch(), DType::kFloat64);
  if (group) memory = heads_of(memory, *group);
  Memories dmemory;
  const RowsResult result = Recurrence(model, options).train(rows, memory, 0.1, {}, &dmemory);
  return {.loss = result.loss.item(),
          .nll = result.nll,
          .parameters = model.parameters(),
          .after = result.memory,
          .dmemory = dmemory};
}

void expect_parts(const Parameters& parts, const Parameters& whole) {
  for (const Parameter& part : parts.all()) {
    SCOPED_TRACE(part.name);
    const Parameter& all = whole[part.name];
    const Shape& shape = part.value.shape();
    EXPECT_EQ(part.division.whole(shape), all.value.shape());
    EXPECT_EQ(relative_error(part.value, part_of(all.value, part.division, shape)), 0);
    EXPECT_LE(relative_error(part.gradient, part_of(all.gradient, part.division, shape)), 1e-11);
  }
}

// Calls use(group) on 2 ranks, and on 4 where there are as many.
template <class Use>
void on_groups(Use use) {
  for (const int count : {2, 4}) {
    Communicator ranks;
    if (count > test_world().size() || !first_ranks(count, ranks)) continue;
    SCOPED_TRACE(text(count, " ranks"));
    use(RankTensorGroup(ranks), ranks);
  }
}

TEST(TensorGroups, GiveTheLossAndGradientsOfOneRank) {
  on_groups([](const RankTensorGroup& group, const Communicator&) {
    for (const Tiny& tiny : shared_tinies())
      for (const bool recompute : {false, true})
        for (const RowSchedule schedule : {RowSchedule::kParallel, RowSchedule::kStreaming}) {
          SCOPED_TRACE(name_of(tiny));
          const ModelConfig config = shared_config(tiny);
          const RecurrenceOptions options{.schedule = schedule,
                                          .segments_per_tape = 2,
                                          .gradient_horizon = 3,
                                          .recompute_blocks = recompute};
          const Trained whole = train(config, rich_rows(), options, nullptr);
          const Trained parts = train(config, rich_rows(), options, &group);
          EXPECT_NEAR(parts.loss / whole.loss, 1, 1e-12);
          EXPECT_LE(relative_error(parts.nll, whole.nll), 1e-12);
          expect_parts(parts.parameters, whole.parameters);
          expect_near(parts.after, heads_of(whole.after, group), 1e-12);
          expect_near(parts.dmemory, heads_of(whole.dmemory, group), 1e-11);
        }
  });
}

TEST(TensorGroups, HoldTheSameNormsAndLossesToTheLastBit) {
  on_groups([](const RankTensorGroup& group, const Communicator& ranks) {
    const Trained mine = train(shared_config({}), rich_rows(), {}, &group);
    const auto expect_same = [&](const Tensor& values) {
      const Tensor all = gathered(ranks, values.reshape({values.size()}));
      for (int p = 1; p < group.count(); ++p)
        EXPECT_TRUE(same_bytes(all.slice(0, 1), all.slice(p, 1)));
    };
    expect_same(mine.nll);
    for (const Parameter& parameter : mine.parameters.all())
      if (!parameter.division.is_part()) expect_same(parameter.gradient);
  });
}

// Counts what goes over a group.
class Counting final : public TensorGroup {
 public:
  explicit Counting(const Communicator& ranks) : group_(ranks) {}
  int count() const override { return group_.count(); }
  int index() const override { return group_.index(); }
  void sum(const Tensor& values) const override {
    ++sums;
    summed += values.size();
    group_.sum(values);
  }
  void wait() const override { group_.wait(); }
  Tensor gather(const Tensor& mine) const override {
    gathered += mine.size();
    return group_.gather(mine);
  }
  mutable std::int64_t sums = 0, summed = 0, gathered = 0;

 private:
  RankTensorGroup group_;
};

// Per block the outputs of attention and feed-forward, and the gradients of what goes into them;
// the embedding and the gradient of the hidden states; of each row's softmax three numbers. Nothing
// for the memory.
TEST(TensorGroups, ExchangeAFewSumsABlockAndNothingForTheMemory) {
  const Communicator all(test_world());
  for (const Activation activation : {Activation::kGelu, Activation::kSwiglu})
    for (const MemoryRule rule : {MemoryRule::kNone, MemoryRule::kDelta}) {
      const Counting group(all);
      const ModelConfig config = shared_config({.memory = rule, .activation = activation});
      const Rows rows = rows_of(20);
      train(config, rows, {}, &group);
      EXPECT_EQ(group.sums, 4 * config.layers + 2);
      EXPECT_EQ(group.summed, (4 * config.layers + 2) * rows.tokens.size() * config.d_model);
      EXPECT_EQ(group.gathered, 3 * rows.tokens.size());
    }
}

TEST(TensorGroups, GatherTheLogitsOfAllTokens) {
  on_groups([](const RankTensorGroup& group, const Communicator&) {
    const ModelConfig config = shared_config({});
    InfiniTransformer whole(config, DType::kFloat64, Device::kCpu);
    InfiniTransformer part(config, DType::kFloat64, Device::kCpu, &group);
    whole.parameters().initialise(1);
    part.parameters().initialise(1);
    const Tensor states =
        random_memories(config, 4, DType::kFloat64)[0].normalizer.reshape({16, 12});
    EXPECT_LE(relative_error(part.logits(states), whole.logits(states)), 1e-12);
    EXPECT_THAT([&] { Decoder decoder(part); },
                ::testing::ThrowsMessage<Error>(::testing::HasSubstr("ranks share this model")));
  });
}

}  // namespace
}  // namespace infini
