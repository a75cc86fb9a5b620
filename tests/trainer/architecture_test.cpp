// The systems that infini is compared to, through the same YAML and the same commands. That their
// runs resume is asked with the others, see training_resume_test.cpp.
#include "tests/trainer/program.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/parallel_checks.h"

namespace infini {
namespace {

using ::testing::HasSubstr;

struct Trained {
  const char* architecture;
  std::vector<std::string> overrides;
};
const Trained kArchitectures[] = {
    {"infini", {}},
    {"transformer_xl",
     {"model.architecture=transformer_xl", "model.memory=none", "model.cache_tokens=12"}},
    {"memorizing_transformer",
     {"model.architecture=memorizing_transformer", "model.memory=none", "model.retrieval_tokens=20",
      "model.neighbours=4"}},
    {"compressive_transformer",
     {"model.architecture=compressive_transformer", "model.memory=none",
      "model.compressed_tokens=6", "model.compression_rate=3"}},
    {"compressive_transformer_by_means",
     {"model.architecture=compressive_transformer", "model.memory=none", "model.cache_tokens=11",
      "model.compression=mean_pool"}},
    {"rmt", {"model.architecture=rmt", "model.memory=none", "model.memory_tokens=4"}},
    {"auto_compressor",
     {"model.architecture=auto_compressor", "model.memory=none", "model.memory_tokens=2",
      "model.memory_segments=3"}},
    {"transformer_fam",
     {"model.architecture=transformer_fam", "model.memory=none", "model.cache_tokens=12",
      "model.memory_tokens=3"}},
    {"megalodon", {"model.architecture=megalodon", "model.memory=none", "model.ema_size=4"}},
};

class Architectures : public ProgramTest {
 protected:
  void SetUp() override {
    write("run.yaml", kTinyRun);
    store_ = tiny_store(path("data"), kTinyLengths);
  }
  Training training(std::vector<std::string> overrides, const std::vector<std::string>& more) {
    overrides.insert(overrides.end(), more.begin(), more.end());
    return training_of(tiny_config(overrides), store_);
  }

  std::shared_ptr<const TokenStore> store_;
};

TEST_F(Architectures, LearnATinyCorpus) {
  for (const Trained& one : kArchitectures)
    for (const char* sampler : {"crops", "lanes"}) {
      SCOPED_TRACE(text(one.architecture, ", ", sampler));
      Training run = training(one.overrides, {text("data.sampler=", sampler), "train.steps=40",
                                              "optim.kind=adamw", "optim.learning_rate=0.01"});
      double first = 0, last = 0;
      for (int step = 0; step < 40; ++step) {
        const double loss = run.step().loss;
        if (step < 5) first += loss / 5;
        if (step >= 35) last += loss / 5;
      }
      EXPECT_LT(last, 0.9 * first);
    }
}

TEST_F(Architectures, StepsAreTheSameInPartsAndInEitherSchedule) {
  for (const Trained& one : kArchitectures) {
    const auto gradients = [&](const char* how) {
      Training run = training(one.overrides, {"data.sampler=lanes", "train.compute=fp64", how});
      for (int step = 0; step < 3; ++step) run.step();
      return run.model().parameters().gradients().to_vector<double>();
    };
    const std::vector<double> whole = gradients("train.accumulate=1");
    for (const char* how :
         {"train.accumulate=2", "train.schedule=streaming", "train.recompute_blocks=true"}) {
      SCOPED_TRACE(text(one.architecture, ", ", how));
      EXPECT_LE(relative_error(gradients(how), whole), 1e-8);
    }
  }
}

TEST_F(Architectures, EvaluateWithACacheOfAnotherLength) {
  expect_done("train run.yaml directory=run model.architecture=transformer_xl model.memory=none");
  const auto said = [&](const char* more) {
    const Outcome outcome = infini(text("evaluate run --split train ", more));
    EXPECT_EQ(outcome.code, 0) << outcome.said;
    return outcome.said.substr(0, outcome.said.find("peak memory"));
  };
  const std::string usual = said(""), same = said("model.cache_tokens=8"),
                    longer = said("model.cache_tokens=30"), off = said("--memory-off");
  EXPECT_EQ(usual, same);
  EXPECT_NE(usual, longer);
  EXPECT_NE(usual, off);
}

TEST_F(Architectures, EvaluateWithAMemoryOfAnotherLength) {
  expect_done(
      "train run.yaml directory=run model.architecture=memorizing_transformer model.memory=none "
      "model.retrieval_tokens=20 model.neighbours=4");
  const auto said = [&](const char* more) {
    const Outcome outcome = infini(text("evaluate run --split train ", more));
    EXPECT_EQ(outcome.code, 0) << outcome.said;
    return outcome.said.substr(0, outcome.said.find("peak memory"));
  };
  const std::string usual = said("");
  EXPECT_EQ(usual, said("model.retrieval_tokens=20"));
  EXPECT_NE(usual, said("model.retrieval_tokens=60"));
  EXPECT_NE(usual, said("model.neighbours=1"));
  EXPECT_NE(usual, said("--memory-off"));
}

TEST_F(Architectures, EvaluateWithACompressedMemoryOfAnotherLength) {
  expect_done(
      "train run.yaml directory=run model.architecture=compressive_transformer model.memory=none");
  const auto said = [&](const char* more) {
    const Outcome outcome = infini(text("evaluate run --split train ", more));
    EXPECT_EQ(outcome.code, 0) << outcome.said;
    return outcome.said.substr(0, outcome.said.find("peak memory"));
  };
  const std::string usual = said("");
  EXPECT_EQ(usual, said("model.compressed_tokens=8"));
  EXPECT_EQ(usual, said("model.reconstruction_weight=0"));
  EXPECT_NE(usual, said("model.compressed_tokens=20"));
  EXPECT_NE(usual, said("model.cache_tokens=20"));
  EXPECT_NE(usual, said("--memory-off"));
}

TEST_F(Architectures, EvaluateWithAWindowOfAnotherLength) {
  expect_done(
      "train run.yaml directory=run model.architecture=transformer_fam model.memory=none "
      "model.memory_tokens=3");
  const auto said = [&](const char* more) {
    const Outcome outcome = infini(text("evaluate run --split train ", more));
    EXPECT_EQ(outcome.code, 0) << outcome.said;
    return outcome.said.substr(0, outcome.said.find("peak memory"));
  };
  const std::string usual = said("");
  EXPECT_EQ(usual, said("model.cache_tokens=8"));
  EXPECT_NE(usual, said("model.cache_tokens=20"));
  EXPECT_NE(usual, said("--memory-off"));
}

TEST_F(Architectures, GoThroughTheCommands) {
  write("text.txt", "a memory of what came before");
  for (const Trained& one : kArchitectures) {
    SCOPED_TRACE(one.architecture);
    const std::string run = text("run-", one.architecture);
    std::string overrides;
    for (const std::string& each : one.overrides) overrides += " " + each;
    expect_done("train run.yaml directory=" + run + overrides);
    const auto measured = [&](const char* more) {
      const Outcome outcome = infini(text("evaluate ", run, " --split train ", more));
      EXPECT_EQ(outcome.code, 0) << outcome.said;
      return outcome.said.substr(0, outcome.said.find("peak memory"));
    };
    const std::string usual = measured("");
    EXPECT_EQ(measured(""), usual);
    EXPECT_NE(measured("--memory-off"), usual);
    expect_done("inspect " + run);
    expect_done("score " + run + " --input text.txt --output scores.jsonl");
    expect_done("generate " + run + " --prompt memory --tokens 40");
  }
}

TEST_F(Architectures, ArePlannedWithTheirMemory) {
  const Outcome plan = infini(
      "plan run.yaml model.vocabulary=260 model.architecture=rmt model.memory=none "
      "model.memory_tokens=4 --json");
  EXPECT_EQ(plan.code, 0) << plan.said;
  const ModelConfig model = tiny_config({}).model;
  EXPECT_EQ(nlohmann::json::parse(plan.said)["memory_numbers"],
            2 * 4 * model.d_model * model.layers);
}

TEST_F(Architectures, RefuseRanksThatWouldShareWhatTheyCannot) {
  std::vector<std::string> architecture{"model.architecture=transformer_xl"};
  const auto refusal = [&](const Axes& axes, const std::vector<std::string>& more) -> std::string {
    std::vector<std::string> overrides{"model.memory=none", "model.vocabulary=260"};
    overrides.insert(overrides.end(), architecture.begin(), architecture.end());
    overrides.insert(overrides.end(), more.begin(), more.end());
    try {
      check_parallel(tiny_config(overrides), axes);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "nothing was refused";
  };
  EXPECT_EQ(refusal({.data = 1, .segments = 1, .tensors = 2}, {}),
            "parallel.tensor = 2, but model.architecture = transformer_xl has blocks that ranks "
            "cannot share");
  EXPECT_EQ(refusal({.data = 1, .segments = 2, .tensors = 1}, {}),
            "parallel.segment = 2, but model.architecture = transformer_xl takes the segments of a "
            "row on one rank");
  EXPECT_EQ(refusal({.data = 1, .segments = 1, .tensors = 1},
                    {"parallel.row_leaves=1", "parallel.segment_leaves=2"}),
            "parallel.segment_leaves = 2, but model.architecture = transformer_xl takes the "
            "segments of a row together");
  EXPECT_EQ(refusal({.data = 2, .segments = 1, .tensors = 1}, {}), "nothing was refused");
  architecture = {"model.architecture=rmt", "model.memory_tokens=2"};
  EXPECT_EQ(refusal({.data = 1, .segments = 1, .tensors = 2}, {}),
            "parallel.tensor = 2, but model.architecture = rmt has blocks that ranks cannot share");
  EXPECT_EQ(refusal({.data = 1, .segments = 2, .tensors = 1}, {}),
            "parallel.segment = 2, but model.architecture = rmt takes the segments of a row on one "
            "rank");
  EXPECT_EQ(refusal({.data = 2, .segments = 1, .tensors = 1}, {}), "nothing was refused");
  architecture = {"model.architecture=auto_compressor", "model.memory_tokens=2",
                  "model.memory_segments=3"};
  EXPECT_EQ(refusal({.data = 1, .segments = 1, .tensors = 2}, {}),
            "parallel.tensor = 2, but model.architecture = auto_compressor has blocks that ranks "
            "cannot share");
  architecture = {"model.architecture=transformer_fam", "model.memory_tokens=2"};
  EXPECT_EQ(refusal({.data = 1, .segments = 1, .tensors = 2}, {}),
            "parallel.tensor = 2, but model.architecture = transformer_fam has blocks that ranks "
            "cannot share");
  EXPECT_EQ(refusal({.data = 1, .segments = 2, .tensors = 1}, {}),
            "parallel.segment = 2, but model.architecture = transformer_fam takes the segments of "
            "a row on one rank");
  architecture = {"model.architecture=megalodon"};
  EXPECT_EQ(refusal({.data = 1, .segments = 1, .tensors = 2}, {}),
            "parallel.tensor = 2, but model.architecture = megalodon has blocks that ranks cannot "
            "share");
  EXPECT_EQ(refusal({.data = 1, .segments = 2, .tensors = 1}, {}),
            "parallel.segment = 2, but model.architecture = megalodon takes the segments of a row "
            "on one rank");
  architecture = {"model.architecture=rmt", "model.memory_tokens=2"};
  const std::vector<std::string> leaves{"parallel.shard=gradients", "parallel.row_leaves=2"};
  EXPECT_EQ(refusal({.data = 2, .segments = 1, .tensors = 1}, leaves),
            "parallel.row_leaves = 2 must be 0 where model.architecture = rmt runs a block once "
            "for each segment with parallel.shard = gradients, which sums the gradients of each "
            "backward pass over the ranks by itself");
}

}  // namespace
}  // namespace infini
