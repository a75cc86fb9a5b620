// The program under mpirun.
#include "tests/trainer/mpi_program.h"
#include "trainer/exit_codes.h"

namespace infini {
namespace {

using ::testing::HasSubstr;

class MpiTrain : public MpiProgramTest {};

// A buffer of a checkpoint in fp64.
std::vector<double> numbers_of(const std::map<std::string, std::vector<char>>& held,
                               const std::string& name) {
  const std::vector<char>& content = held.at(name);
  std::vector<double> values(content.size() / sizeof(double));
  std::memcpy(values.data(), content.data(), content.size());
  return values;
}

TEST_F(MpiTrain, SavedOnTwoRanksGoesOnOnAnyNumber) {
  const std::string same = "data.sampler=lanes parallel.row_leaves=4 directory=";
  expect_exit(train_on(1, same + "unbroken"), 0);
  const Bytes unbroken = held("unbroken");
  EXPECT_GT(unbroken.count("memory/0/matrix"), 0u);
  for (const int ranks : {1, 2, 4}) {
    SCOPED_TRACE(ranks);
    const std::string run = text("run", ranks);
    expect_exit(train_on(2, same + run + " --stop-after 3"), kExitStopped);
    EXPECT_EQ(find_latest(path(run))->ranks(), 2);
    expect_exit(train_on(ranks, same + run + " --resume"), 0);
    EXPECT_EQ(find_latest(path(run))->ranks(), ranks);
    EXPECT_TRUE(held(run) == unbroken);
    EXPECT_EQ(metrics(run).size(), 6u);
  }
}

TEST_F(MpiTrain, DividedStateGoesOnUndividedAndBack) {
  const std::string same = "parallel.row_leaves=4 optim.clip_norm=0 train.compute=bf16 directory=";
  expect_exit(train_on(1, same + "unbroken"), 0);
  for (const auto& [before, after] : {std::pair("none", "optimizer"), {"optimizer", "none"}}) {
    const std::string run = text("from_", before);
    expect_exit(train_on(4, text(same, run, " --stop-after 3 parallel.shard=", before)),
                kExitStopped);
    expect_exit(train_on(2, text(same, run, " --resume parallel.shard=", after)), 0);
    EXPECT_TRUE(held(run) == held("unbroken")) << run;
  }
}

// Each rank takes what it has of the model.
TEST_F(MpiTrain, BeginsWithTheValuesOfAnotherRunOnAnyNumber) {
  const std::string model =
      "model.vocabulary=260 model.projection_biases=true model.head_norms=true train.compute=fp64 ";
  expect_exit(train_on(1, model + "directory=first"), 0);
  const std::string same = model + "init_from=first seed=9 train.steps=2 directory=";
  expect_exit(train_on(1, same + "alone"), 0);
  const Bytes alone = held("alone");
  int runs = 0;
  EXPECT_FALSE(alone == held("first"));
  for (const char* axes : {"parallel.data=2", "parallel.tensor=2", "parallel.shard=optimizer",
                           "parallel.shard=parameters train.recompute_blocks=true"}) {
    SCOPED_TRACE(axes);
    const std::string run = text("run", ++runs);
    expect_exit(train_on(2, same + run + " " + axes), 0);
    const Bytes got = held(run);
    for (const auto& [name, bytes] : alone) {
      if (name == "tokenizer") continue;
      EXPECT_LE(relative_error(numbers_of(got, name), numbers_of(alone, name)), 1e-9) << name;
    }
  }
}

// Blocks that two ranks share, measured on the way, then whole on one rank, then on two that share
// rows. What they leave is evaluated and shown on one.
TEST_F(MpiTrain, SharedBlocksGoOnWhole) {
  small_store(path("data/validation.h5"), {20, 30, 25});
  const std::string same =
      "model.heads=4 model.kv_heads=2 model.vocabulary=260 data.sampler=lanes train.compute=fp64 "
      "evaluate.every=3 directory=";
  expect_exit(train_on(1, same + "unbroken"), 0);
  const Bytes unbroken = held("unbroken");
  for (const auto& [ranks, axes] : {std::pair(1, ""), {2, "parallel.data=2"}}) {
    const std::string run = text("run", ranks);
    expect_exit(train_on(2, same + run + " parallel.tensor=2 --stop-after 3"), kExitStopped);
    expect_exit(shell("$infini evaluate " + run + " --split train"), 0);
    const Outcome shown = shell("$infini inspect " + run);
    expect_exit(shown, 0);
    EXPECT_THAT(shown.said, HasSubstr("f64 [16, 16]"));  // whole
    expect_exit(train_on(ranks, same + run + " --resume " + axes), 0);
    const Bytes got = held(run);
    ASSERT_EQ(got.size(), unbroken.size());
    for (const auto& [name, bytes] : unbroken) {
      if (name == "tokenizer") continue;
      EXPECT_LE(relative_error(numbers_of(got, name), numbers_of(unbroken, name)), 1e-10) << name;
    }
  }
  const auto measured = [&](const std::string& run) {
    return shell("grep -o 'validation_token_perplexity.*' " + run + "/metrics.jsonl | cut -c1-35");
  };
  EXPECT_EQ(measured("run1").said, measured("unbroken").said);
  EXPECT_THAT(measured("run1").said, HasSubstr("validation_token_perplexity"));
}

// What ranks divide they do not sum by the tree of more rows than there are ranks: the run beside
// it divides nothing, and has the same tree before and after.
TEST_F(MpiTrain, WhatRanksDivideGoesOnOnAnyNumber) {
  small_store(path("data/validation.h5"), {20, 30});
  const std::string same =
      "optim.clip_norm=0 train.recompute_blocks=true evaluate.every=5 directory=";
  const auto measured = [&](const std::string& run) {
    for (const nlohmann::json& line : metrics(run))
      if (line.contains("validation_token_perplexity"))
        return line.at("validation_token_perplexity").get<double>();
    return 0.0;
  };
  const auto leaves = [](int ranks) { return text(" parallel.row_leaves=", ranks); };
  for (const int ranks : {1, 4}) {
    const std::string whole = text("whole", ranks);
    expect_exit(train_on(1, same + whole + leaves(2) + " --stop-after 3"), kExitStopped);
    expect_exit(train_on(1, same + whole + leaves(ranks) + " --resume"), 0);
    for (const char* shard : {"gradients", "parameters"}) {
      const std::string run = text(shard, ranks), divided = text(" parallel.shard=", shard);
      SCOPED_TRACE(run);
      expect_exit(train_on(2, same + run + leaves(2) + divided + " --stop-after 3"), kExitStopped);
      expect_exit(train_on(ranks, same + run + leaves(ranks) + divided + " --resume"), 0);
      EXPECT_EQ(find_latest(path(run))->ranks(), ranks);
      EXPECT_TRUE(held(run) == held(whole));
      EXPECT_NEAR(measured(run) / measured(whole), 1, 1e-9);
    }
  }
}

// Vectors get gradients from all segments of a tape, be it that a block runs once for each of them
// or takes vectors of its own through itself; ranks that divide parameters all keep those in full
// precision. A matrix that they do divide comes out the same, too.
TEST_F(MpiTrain, WhatArchitecturesAddStaysWholeWhereRanksDivide) {
  const struct {
    const char *name, *architecture, *parameter;
  } kKinds[] = {
      {"rmt", "rmt model.memory_tokens=3", "memory_tokens.weight"},
      {"fam", "transformer_fam model.memory_tokens=3", "memory_tokens.weight"},
      {"fam-keys", "transformer_fam model.memory_tokens=2", "blocks.0.attention.key.weight"},
      {"averages", "megalodon model.ema_size=4", "blocks.0.attention.average.alpha"},
      {"heads", "megalodon model.ema_size=3", "blocks.1.attention.shared.weight"}};
  for (const auto& [name, architecture, parameter] : kKinds) {
    const std::string same =
        text("model.architecture=", architecture,
             " model.memory=none train.compute=fp64 train.recompute_blocks=true directory=", name);
    expect_exit(train_on(1, same), 0);
    const std::vector<double> whole = numbers_of(held(name), parameter);
    for (const char* shard : {"none", "optimizer", "gradients", "parameters"}) {
      expect_exit(train_on(2, text(same, "-", shard, " parallel.shard=", shard)), 0);
      EXPECT_LE(relative_error(numbers_of(held(text(name, "-", shard)), parameter), whole), 1e-10)
          << name << ", " << shard;
    }
  }
}

TEST_F(MpiTrain, OneRankSpeaksForAll) {
  const Outcome outcome = train_on(4, "directory=run");
  expect_exit(outcome, 0);
  EXPECT_EQ(times(outcome.said, "parameters on 4 ranks"), 1) << outcome.said;
  EXPECT_EQ(metrics("run").size(), 6u);
}

TEST_F(MpiTrain, WhatCannotBeSharedIsRefusedOnceBeforeAnythingStarts) {
  const std::pair<const char*, const char*> kRefusals[] = {
      {"data.batch_rows=5", "data.batch_rows = 5 is not divisible by parallel.data = 4"},
      {"parallel.data=3",
       "parallel.data = 3 times parallel.tensor = 1 times parallel.segment = 1 "
       "is 3, but this run has 4 ranks; start it with mpirun -np 3"},
      {"parallel.tensor=4", "model.heads = 2 is not divisible by parallel.tensor = 4"},
      {"parallel.tensor=2 model.vocabulary=261",
       "model.vocabulary = 261 is not divisible by parallel.tensor = 2; it may be larger than"},
      {"parallel.row_leaves=3", "parallel.row_leaves must be 0 or a power of two, got 3"},
      {"parallel.row_leaves=2", "parallel.row_leaves = 2 is not divisible by parallel.data = 4"},
      {"parallel.shard=parameters", "needs train.recompute_blocks = true"},
      {"parallel.dada=2", "unknown key"},
  };
  for (const auto& [override, message] : kRefusals) {
    const Outcome outcome = train_on(4, std::string(override) + " directory=run");
    expect_exit(outcome, kExitConfig);
    EXPECT_THAT(outcome.said, HasSubstr(message));
    EXPECT_EQ(times(outcome.said, "infini: error: rank 0 of 4: "), 1) << outcome.said;
    EXPECT_EQ(times(outcome.said, "infini: error: "), 1) << outcome.said;
    EXPECT_FALSE(std::filesystem::exists(path("run")));
  }
}

TEST_F(MpiTrain, AnErrorOfOneRankEndsAllOfThem) {
  // The third rank finds another store than the others.
  const Outcome outcome = shell(
      "mpirun --oversubscribe -np 2 $infini train tiny.yaml directory=run : "
      "-np 1 $infini train tiny.yaml directory=run data.store=elsewhere : "
      "-np 1 $infini train tiny.yaml directory=run");
  expect_exit(outcome, kExitConfig);
  EXPECT_THAT(outcome.said, HasSubstr("infini: error: rank 2 of 4: "));
  EXPECT_EQ(times(outcome.said, "infini: error: "), 1) << outcome.said;
}

}  // namespace
}  // namespace infini
