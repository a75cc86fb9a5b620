// Ranks that divide gradients or parameters train the model that one rank trains.
#include "model/decoder.h"
#include "tests/mpi/training_on_ranks.h"
#include "trainer/perplexity.h"

namespace infini {
namespace {

const char* const kShards[] = {"gradients", "parameters"};

class Shards : public OnRanks {
 protected:
  // On 2 ranks and on as many as there are, beside one rank that divides nothing.
  template <class Check>
  void compare_divided(const std::vector<std::string>& overrides, const std::string& ranks_key,
                       Check check) {
    for (const int count : {2, 4}) {
      Communicator group;
      if (count > test_world().size() || !first_ranks(count, group)) continue;
      std::vector<std::string> base = overrides;
      base.push_back("train.recompute_blocks=true");
      if (!ranks_key.empty()) base.push_back(text(ranks_key, "=", count));
      const Result one = run(Communicator(), base, 4);
      for (const char* shard : kShards) {
        std::vector<std::string> divided = base;
        divided.push_back(text("parallel.shard=", shard));
        SCOPED_TRACE(text(count, " ranks, ", ::testing::PrintToString(divided)));
        check(run(group, divided, 4), one);
      }
    }
  }
};

void expect_same(const Result& ranks, const Result& one) {
  EXPECT_EQ(ranks.losses, one.losses);
  EXPECT_EQ(ranks.masters, one.masters);
}

TEST_F(Shards, GiveTheBitsOfOneRankByTheTreeOverRows) {
  for (const char* optimizer : {"adafactor", "adamw"})
    for (const char* tied : {"true", "false"})
      for (const char* compute : {"fp32", "bf16"})
        compare_divided(
            {text("optim.kind=", optimizer), text("model.tied=", tied),
             text("train.compute=", compute), "optim.learning_rate=0.01", "optim.clip_norm=0"},
            "parallel.row_leaves", expect_same);
  compare_divided(
      {"data.sampler=lanes", "model.memory=delta", "model.activation=swiglu", "optim.clip_norm=0"},
      "parallel.row_leaves", expect_same);
}

TEST_F(Shards, LeaveFrozenParametersOutOfWhatTheyExchange) {
  for (const char* groups :
       {"[{pattern: '*.attention.*'}, {pattern: '*', frozen: true}]",
        "[{pattern: embedding.weight, frozen: true}, {pattern: 'blocks.0.*', frozen: true}]"})
    for (const char* tied : {"true", "false"})
      compare_divided({text("optim.groups=", groups), text("model.tied=", tied), "optim.kind=adamw",
                       "optim.learning_rate=0.01", "optim.clip_norm=0"},
                      "parallel.row_leaves", expect_same);
}

// The norm of all gradients is added in another order, which a step sees when it clips; so is
// every gradient where a rank goes back through its rows in several passes.
TEST_F(Shards, AreWithinRoundingOtherwise) {
  compare_divided({"parallel.row_leaves=0"}, "", expect_close);
  for (const char* tied : {"true", "false"}) {
    const std::string table = text("model.tied=", tied);
    const std::string rows = "data.batch_rows=8";
    compare_divided({table, rows, "train.accumulate=2"}, "", expect_close);
    compare_divided({table, "train.schedule=streaming", "data.row_tokens=32"}, "", expect_close);
    compare_divided({table, "data.row_tokens=20", "data.sampler=crops"}, "", expect_close);
  }
}

// Four ranks as two by two; two ranks share each row.
TEST_F(Shards, WithSharedRowsGiveTheBitsOfOneRank) {
  const Communicator all(test_world());
  const std::vector<std::string> base{"data.sampler=lanes",
                                      "data.row_tokens=32",
                                      text("parallel.row_leaves=", all.size() / 2),
                                      "parallel.segment_leaves=2",
                                      "train.recompute_blocks=true",
                                      "optim.clip_norm=0"};
  const Result one = run(Communicator(), base, 6);
  for (const char* shard : kShards) {
    std::vector<std::string> divided = base;
    divided.insert(divided.end(), {"parallel.segment=2", text("parallel.shard=", shard)});
    SCOPED_TRACE(shard);
    expect_same(run(all, divided, 6), one);
  }
}

TEST_F(Shards, KeepTheActivationsOfBlocksWhereParametersStay) {
  const Communicator all(test_world());
  const std::vector<std::string> base{text("parallel.row_leaves=", all.size()),
                                      "optim.clip_norm=0"};
  expect_same(run(all, {base[0], base[1], "parallel.shard=gradients"}, 4),
              run(Communicator(), base, 4));
}

TEST_F(Shards, SkipAStepThatOneRankCannotTake) {
  const Communicator all(test_world());
  for (const char* shard : kShards) {
    Training training =
        training_on(all, {"train.recompute_blocks=true", text("parallel.shard=", shard)}, store_);
    training.step();
    const std::vector<double> before = masters_of(training);
    // The norm of the last block's attention, which every rank keeps.
    const Tensor norm = training.model().parameters()["blocks.1.attention_norm.weight"].master;
    const float kept = norm.data<float>()[5];
    if (all.rank() == all.size() - 1) norm.data<float>()[5] = NAN;
    EXPECT_TRUE(training.step().skipped);
    norm.data<float>()[5] = kept;
    EXPECT_EQ(masters_of(training), before);
    EXPECT_FALSE(training.step().skipped);
  }
}

// Documents of other lengths than rows, and single tokens, read by all ranks together.
TEST_F(Shards, AreMeasuredTogether) {
  const Communicator all(test_world());
  const std::vector<std::string> base{text("parallel.row_leaves=", all.size()),
                                      "train.recompute_blocks=true", "optim.clip_norm=0"};
  std::vector<std::string> divided = base;
  divided.push_back("parallel.shard=parameters");
  Training one = training_on(Communicator(), base, store_);
  Training part = training_on(all, divided, store_);
  for (int i = 0; i < 3; ++i) {  // values that change between measurements
    one.step();
    part.step();
    const Communicator readers = part.independent_ranks();
    EXPECT_EQ(readers.size(), 1);
    const PerplexityReport whole = measure_perplexity(one.model(), *store_, {});
    const PerplexityReport mine = measure_perplexity(
        part.model(), *store_, {.share = readers.rank(), .shares = readers.size()});
    EXPECT_EQ(mine.token_perplexity(), whole.token_perplexity());
    const std::vector<std::int32_t> prompt{3, 1, 2};
    EXPECT_EQ(Decoder(part.model()).generate_greedy(prompt, 12),
              Decoder(one.model()).generate_greedy(prompt, 12));
  }
}

// Wide enough that parameters outweigh activations: eight blocks of 0.75 MiB each, AdamW.
TEST_F(Shards, HoldTheirPartAndTwoBlocks) {
  const Communicator all(test_world());
  const std::vector<std::string> base{
      "model.layers=8",           "model.d_model=128", "model.heads=4",
      "model.feed_forward=512",   "optim.kind=adamw",  "train.recompute_blocks=true",
      "optim.learning_rate=0.001"};
  struct Use {
    double held, peak;  // bytes, beside what the test holds
  };
  const auto use = [&](const char* shard) {
    const std::int64_t before = memory_statistics(Device::kCpu).in_use_bytes;
    std::vector<std::string> overrides = base;
    overrides.push_back(text("parallel.shard=", shard));
    Training training = training_on(all, overrides, store_);
    training.step();
    const std::int64_t held = memory_statistics(Device::kCpu).in_use_bytes - before;
    reset_peak(Device::kCpu);
    training.step();
    const std::int64_t peak = memory_statistics(Device::kCpu).peak_bytes - before;
    return Use{static_cast<double>(held), static_cast<double>(peak)};
  };
  const double block = 4.0 * (4 * 128 * 128 + 2 * 128 * 512);  // its values, or its gradients
  const Use none = use("none");
  const double ranks = all.size(), all_values = none.held / 4, pass = none.peak - none.held;
  EXPECT_GT(all_values, 8 * block);
  // Blocks are owned by the matrix: nobody has more than a matrix above the even share.
  const double uneven = 4.0 * 128 * 512;
  const auto expect_within = [&](const Use& mine, double whole, double divided, double blocks) {
    const double held = whole * all_values + divided * (all_values / ranks + uneven);
    EXPECT_LT(mine.held, 1.02 * held);
    EXPECT_LT(mine.peak, 1.02 * (held + blocks * block + pass));
  };
  // Two blocks of gradients; of values as well.
  expect_within(use("gradients"), 1, 3, 2);
  expect_within(use("parameters"), 0, 4, 4);
}

TEST_F(Shards, RefuseTreesThatNoSumOfPassesGives) {
  const Communicator all(test_world());
  const int count = all.size();
  const auto refusal = [&](std::vector<std::string> overrides) {
    overrides.push_back("parallel.shard=gradients");
    return message_of<ConfigError>([&] { training_on(all, overrides, store_); });
  };
  const std::string with =
      " with parallel.shard = gradients, which sums the gradients of each backward pass";
  EXPECT_THAT(refusal({text("parallel.row_leaves=", 2 * count), "data.batch_rows=8"}),
              ::testing::HasSubstr(text("parallel.row_leaves = ", 2 * count,
                                        " must be 0 or parallel.data = ", count, with)));
  const std::string leaves = text("parallel.row_leaves=", count);
  EXPECT_THAT(refusal({leaves, "parallel.segment_leaves=2"}),
              ::testing::HasSubstr(
                  text("parallel.segment_leaves = 2 must be 0 or parallel.segment = 1", with)));
  EXPECT_THAT(refusal({leaves, "train.schedule=streaming"}),
              ::testing::HasSubstr(
                  text("parallel.row_leaves = ", count, " needs train.schedule = parallel", with)));
  EXPECT_THAT(
      message_of<ConfigError>([&] { training_on(all, {"parallel.shard=parameters"}, store_); }),
      ::testing::HasSubstr("needs train.recompute_blocks = true, got false"));
  EXPECT_THAT(refusal({leaves, "data.row_tokens=20"}),
              ::testing::HasSubstr("needs data.row_tokens = 20 in whole segments of "
                                   "model.segment_tokens = 8"));
}

}  // namespace
}  // namespace infini
