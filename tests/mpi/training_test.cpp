// Training on several ranks gives what training on one gives.
#include "tests/data/example_fixtures.h"
#include "tests/mpi/training_on_ranks.h"
#include "trainer/perplexity.h"

namespace infini {
namespace {

TEST_F(OnRanks, DataParallelGivesTheBitsOfOneRankByTheTreeOverRows) {
  for (const char* sampler : {"crops", "lanes"})
    for (const char* optimizer : {"adafactor", "adamw"})
      compare({text("data.sampler=", sampler), text("optim.kind=", optimizer),
               "optim.learning_rate=0.01", "parallel.row_leaves=4"},
              expect_equal);
  compare({"model.memory=delta", "train.compute=bf16", "parallel.row_leaves=4",
           "train.schedule=streaming"},
          expect_equal);
}

TEST_F(OnRanks, FrozenParametersAreNeitherSummedNorUpdated) {
  for (const char* groups :
       {"[{pattern: '*.attention.*'}, {pattern: '*', frozen: true}]",
        "[{pattern: embedding.weight, frozen: true}, {pattern: 'blocks.0.*', frozen: true}]"}) {
    const std::string key = text("optim.groups=", groups);
    compare({key, "parallel.row_leaves=4"}, expect_equal);
    compare({key, "parallel.row_leaves=4", "parallel.shard=optimizer"}, expect_close);
    compare({key, "parallel.bucket_mebibytes=0.001"}, expect_close);  // a bucket for each block
  }
}

TEST_F(OnRanks, DataParallelWithoutTheTreeIsWithinRounding) {
  compare({"data.sampler=lanes"}, expect_close);
  compare({"data.sampler=crops", "train.recompute_blocks=true", "optim.kind=adamw",
           "optim.learning_rate=0.001"},
          expect_close);
}

TEST_F(OnRanks, SegmentParallelGivesTheBitsOfOneRankForTheLinearMemory) {
  for (const char* sampler : {"crops", "lanes"})
    for (const char* compute : {"fp32", "bf16"})
      for (const int ranks : {2, 4}) {
        if (ranks > test_world().size()) continue;
        const std::vector<std::string> base{
            text("data.sampler=", sampler), text("train.compute=", compute), "data.row_tokens=64",
            "parallel.row_leaves=1", text("parallel.segment_leaves=", ranks)};
        std::vector<std::string> shared = base;
        shared.push_back(text("parallel.segment=", ranks));
        SCOPED_TRACE(::testing::PrintToString(shared));
        Communicator group;
        if (!first_ranks(ranks, group)) continue;
        EXPECT_TRUE(run(group, shared, 6) == run(Communicator(), base, 6));
      }
}

// Rows that differ in length, and a last step of an epoch that lacks one.
TEST_F(OnRanks, ExamplesGiveTheBitsOfOneRank) {
  store_ = example_store(folder_ / "examples/train.h5",
                         {{40, {3, 5}}, {12, {4}}, {30, {6, 1}}, {3, {2}}, {25, {3, 4}}, {8, {2}}})
               ->documents();
  const std::vector<std::string> base{"data.source=examples",         "data.store=examples",
                                      "data.row_tokens=64",           "data.examples.prompt=A",
                                      "data.examples.sorted_steps=2", "optim.learning_rate=0.01"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), base.begin(), base.end());
    return more;
  };
  compare(with({"parallel.row_leaves=4"}), expect_equal);
  const std::vector<std::string> leaves =
      with({"parallel.row_leaves=1", "parallel.segment_leaves=2"});
  std::vector<std::string> shared = leaves;
  shared.push_back("parallel.segment=2");
  Communicator group;
  if (!first_ranks(2, group)) return;
  EXPECT_TRUE(run(group, shared, 6) == run(Communicator(), leaves, 6));
}

TEST_F(OnRanks, SegmentParallelIsWithinRounding) {
  const Communicator all(test_world());
  for (const char* memory : {"linear", "delta", "none"})
    for (const char* sampler : {"crops", "lanes"})
      for (const char* horizon : {"0", "3"}) {
        const std::vector<std::string> base{
            text("data.sampler=", sampler), text("model.memory=", memory),
            "data.row_tokens=64",           text("train.gradient_horizon=", horizon),
            "train.recompute_blocks=true",  "train.compute=fp64"};
        std::vector<std::string> shared = base;
        shared.push_back(text("parallel.segment=", all.size()));
        SCOPED_TRACE(::testing::PrintToString(shared));
        expect_close(run(all, shared, 4), run(Communicator(), base, 4));
      }
}

// Four ranks as two by two; on two ranks the combinations with one axis.
TEST_F(OnRanks, RowsAndSegmentsTogetherGiveTheBitsOfOneRank) {
  const Communicator all(test_world());
  const int segments = 2, rows = all.size() / 2;
  for (const char* shard : {"none", "optimizer"}) {
    const std::vector<std::string> base{"data.sampler=lanes",
                                        "data.row_tokens=32",
                                        text("parallel.row_leaves=", rows),
                                        text("parallel.segment_leaves=", segments),
                                        text("parallel.shard=", shard),
                                        "optim.clip_norm=0"};
    std::vector<std::string> shared = base;
    shared.push_back(text("parallel.segment=", segments));
    const Result ranks = run(all, shared, 6), one = run(Communicator(), base, 6);
    EXPECT_EQ(ranks.losses, one.losses);
    EXPECT_EQ(ranks.masters, one.masters);
    Communicator group;
    if (rows == 1 || !first_ranks(2, group)) continue;
    EXPECT_EQ(run(group, base, 6).losses, one.losses);
  }
}

TEST_F(OnRanks, DividedOptimizerStateChangesNothing) {
  for (const char* optimizer : {"adafactor", "adamw"})
    for (const char* compute : {"fp32", "bf16"}) {
      const std::vector<std::string> base{
          text("optim.kind=", optimizer), text("train.compute=", compute),
          "optim.learning_rate=0.01", "parallel.row_leaves=4", "parallel.shard=optimizer"};
      // The norm of the gradients is added in another order, which a step sees when it clips.
      compare(base, [](const Result& ranks, const Result& one) {
        EXPECT_EQ(ranks.losses[0], one.losses[0]);
        EXPECT_LE(relative_error(ranks.losses, one.losses), 1e-6);
        EXPECT_LE(relative_error(ranks.norms, one.norms), 1e-6);
      });
      std::vector<std::string> unclipped = base;
      unclipped.push_back("optim.clip_norm=0");
      compare(unclipped,
              [](const Result& ranks, const Result& one) { EXPECT_EQ(ranks.losses, one.losses); });
    }
}

TEST_F(OnRanks, DividedStateIsHeldOnce) {
  const Communicator all(test_world());
  const auto state_bytes = [](Training& training) {
    double bytes = 0;
    for (const auto& [name, content] : bytes_of(training))
      if (name.starts_with("optimizer/")) bytes += static_cast<double>(content.size());
    return bytes;
  };
  Training one = training_on(Communicator(), {}, store_);
  Training part = training_on(all, {"parallel.shard=optimizer"}, store_);
  const double whole = state_bytes(one);
  const std::vector<double> parts = all.gather(state_bytes(part));
  double sum = 0;
  for (const double bytes : parts) {
    EXPECT_LT(bytes, 0.75 * whole);
    sum += bytes;
  }
  EXPECT_EQ(sum, whole);
}

TEST_F(OnRanks, SizeOfBucketsChangesNoBit) {
  const Communicator all(test_world());
  const std::vector<std::string> base{"parallel.row_leaves=4"};
  const Result whole = run(all, base, 3);
  for (const char* size : {"0.0001", "0.005"})
    EXPECT_TRUE(run(all, {base[0], text("parallel.bucket_mebibytes=", size)}, 3) == whole);
}

TEST_F(OnRanks, AllSkipAStepThatOneCannotTake) {
  const Communicator all(test_world());
  Training training = training_on(all, {"data.sampler=lanes"}, store_);
  training.step();
  const std::vector<double> before = masters_of(training);
  // A weight that only one rank finds spoilt: nothing but the exchange tells the others.
  const Tensor& masters = training.model().parameters().masters();
  const float kept = masters.data<float>()[5];
  if (all.rank() == all.size() - 1) masters.data<float>()[5] = NAN;
  EXPECT_TRUE(training.step().skipped);
  masters.data<float>()[5] = kept;
  EXPECT_EQ(masters_of(training), before);
  EXPECT_FALSE(training.step().skipped);
}

TEST_F(OnRanks, WhatAStepReportsIsOfAllRanks) {
  const Communicator all(test_world());
  Training training = training_on(all, {}, store_);
  const StepReport report = training.step();
  EXPECT_EQ(report.tokens, 64);
  for (const double loss : all.gather(report.token_loss)) EXPECT_EQ(loss, report.token_loss);
}

TEST_F(OnRanks, RanksDivideTheDocumentsThatTheyAreMeasuredOn) {
  const Communicator all(test_world());
  Training training = training_on(all, {}, store_);
  training.step();
  const PerplexityReport one = measure_perplexity(training.model(), *store_, {});
  const PerplexityReport mine =
      measure_perplexity(training.model(), *store_, {.share = all.rank(), .shares = all.size()});
  const PerplexityReport sum = over_ranks(mine, all);
  EXPECT_LT(mine.tokens, one.tokens);
  EXPECT_EQ(sum.tokens, one.tokens);
  EXPECT_EQ(sum.documents, one.documents);
  EXPECT_EQ(sum.parts.size(), one.parts.size());
  EXPECT_NEAR(sum.token_perplexity() / one.token_perplexity(), 1, 1e-12);
}

TEST_F(OnRanks, RefusesWhatRanksCannotShare) {
  const Communicator all(test_world());
  const auto refusal = [&](const std::vector<std::string>& overrides) {
    return message_of<ConfigError>([&] { training_on(all, overrides, store_); });
  };
  EXPECT_THAT(refusal({"data.batch_rows=5"}),
              ::testing::HasSubstr(text("data.batch_rows = 5 is not divisible by parallel.data = ",
                                        all.size(), " times train.accumulate = 1")));
  EXPECT_THAT(refusal({"parallel.row_leaves=1"}),
              ::testing::HasSubstr("parallel.row_leaves = 1 is not divisible by parallel.data"));
  const std::string segments = text("parallel.segment=", all.size());
  EXPECT_THAT(refusal({segments, "data.row_tokens=24"}),
              ::testing::HasSubstr(text("data.row_tokens is a row of 24 tokens, which does not "
                                        "divide into parallel.segment = ",
                                        all.size())));
  EXPECT_THAT(refusal({segments, "data.row_tokens=64", "train.schedule=streaming"}),
              ::testing::HasSubstr("train.recompute_blocks=true needs less memory"));
  EXPECT_THAT(refusal({segments, "data.row_tokens=64", "parallel.segment_leaves=8",
                       "parallel.row_leaves=1"}),
              ::testing::HasSubstr("parallel.segment_leaves = 8 and parallel.segment = "));
  EXPECT_THAT(refusal({"parallel.data=3"}),
              ::testing::HasSubstr(text("but this run has ", all.size(), " ranks")));
}

}  // namespace
}  // namespace infini
