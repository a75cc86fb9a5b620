// What a run leaves behind: its resolved configuration, a line of metrics for each step, and
// checkpoints; and that no run touches another's.
#include <algorithm>

#include "tests/trainer/program.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/directory_lock.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

class RunDirectory : public ProgramTest {
 protected:
  void SetUp() override {
    write("run.yaml", kTinyRun);
    tiny_store(path("data"), kTinyLengths);
  }
  std::vector<std::int64_t> steps_in_log(const std::string& run) const {
    std::vector<std::int64_t> steps;
    for (const nlohmann::json& line : metrics(run)) steps.push_back(line.at("step"));
    return steps;
  }
  std::vector<std::int64_t> steps_saved(const std::string& run) const {
    std::vector<std::int64_t> steps;
    for (const CheckpointPath& found : list_checkpoints(path(run))) steps.push_back(found.step);
    return steps;
  }
  using Files = std::map<std::string, std::pair<std::string, fs::file_time_type>>;
  Files files_of(const std::string& run) const {
    Files files;
    for (const auto& entry : fs::recursive_directory_iterator(path(run)))
      if (entry.is_regular_file())
        files[entry.path().string()] = {read_file(entry.path()), entry.last_write_time()};
    return files;
  }
};

const std::vector<std::int64_t> kSixSteps = {1, 2, 3, 4, 5, 6};

TEST_F(RunDirectory, ConfigurationReadsBackAsItselfAndRepeatsTheRun) {
  expect_done("train run.yaml optim.learning_rate=0.0123 model.gate_mean=-0.5 checkpoint.every=4");
  EXPECT_THAT(content("run/config.yaml"), ::testing::HasSubstr("learning_rate: 0.0123"));
  EXPECT_THAT(content("run/config.yaml"), ::testing::HasSubstr("vocabulary: 257"));
  EXPECT_EQ(infini("inspect run/config.yaml").said, content("run/config.yaml"));
  EXPECT_EQ(content("run/checkpoints/step-00000004/config.yaml"), content("run/config.yaml"));

  expect_done("train run/config.yaml directory=again");
  EXPECT_TRUE(shard("again", 6) == shard("run", 6));
}

TEST_F(RunDirectory, MetricsHaveALineForEachStepWithEveryFigure) {
  expect_done("train run.yaml");
  EXPECT_EQ(steps_in_log("run"), kSixSteps);
  for (const nlohmann::json& line : metrics("run")) {
    for (const char* name : {"loss", "token_loss", "perplexity", "learning_rate", "gradient_norm",
                             "tokens_per_second", "seconds", "peak_bytes"})
      EXPECT_GT(line.at(name).get<double>(), 0) << name << " in " << line;
    EXPECT_EQ(line.at("skipped"), 0);
    EXPECT_DOUBLE_EQ(line.at("perplexity"), std::exp(line.at("token_loss").get<double>()));
  }
  // Warm-up over two steps, then cosine down to a tenth.
  EXPECT_DOUBLE_EQ(metrics("run")[0].at("learning_rate"), 0.025);
  EXPECT_DOUBLE_EQ(metrics("run")[1].at("learning_rate"), 0.05);
  EXPECT_DOUBLE_EQ(metrics("run")[5].at("learning_rate"), 0.005);
  EXPECT_FALSE(fs::is_empty(path("run/tensorboard")));
}

TEST_F(RunDirectory, LogOfAResumedRunHasEachStepOnce) {
  // Stopped after step 5, but the newest checkpoint left is that of step 2.
  infini("train run.yaml checkpoint.every=2 checkpoint.keep=0 --stop-after 5");
  EXPECT_EQ(steps_saved("run"), (std::vector<std::int64_t>{2, 4, 5}));
  fs::remove_all(path("run/checkpoints/step-00000004"));
  fs::remove_all(path("run/checkpoints/step-00000005"));
  expect_done("train run.yaml --resume");
  EXPECT_EQ(steps_in_log("run"), kSixSteps);

  const std::string log = content("run/metrics.jsonl");
  const std::string last = shard("run", 6);
  expect_done("train run.yaml --resume");  // nothing is left to do
  EXPECT_EQ(content("run/metrics.jsonl"), log);
  EXPECT_TRUE(shard("run", 6) == last);
}

TEST_F(RunDirectory, ValidationFiguresStandOnLinesOfTheirOwn) {
  small_store(path("data/validation.h5"), {20, 30});
  expect_done("train run.yaml evaluate.every=3");
  std::vector<std::int64_t> measured;
  std::vector<std::int64_t> trained;
  for (const nlohmann::json& line : metrics("run"))
    (line.contains("validation_token_perplexity") ? measured : trained).push_back(line.at("step"));
  EXPECT_EQ(trained, kSixSteps);
  EXPECT_EQ(measured, (std::vector<std::int64_t>{3, 6}));
}

TEST_F(RunDirectory, OfAStoppedRunIsNamedForResuming) {
  expect_done("train run.yaml");
  const Outcome outcome = infini("train run.yaml --stop-after 4");
  EXPECT_EQ(outcome.code, 75);
  EXPECT_THAT(outcome.said,
              ::testing::HasSubstr("continue with infini train run-2/config.yaml --resume"));
  expect_done("train run-2/config.yaml --resume");
  EXPECT_TRUE(shard("run-2", 6) == shard("run", 6));
}

TEST_F(RunDirectory, IsThatOfOneProcess) {
  expect_done("train run.yaml train.steps=2");
  {
    const DirectoryLock held = DirectoryLock::take("a test", path("run"));
    expect_refused("train run.yaml --resume", 2, "another process is writing to run; wait for its");
    const DirectoryLock empty = DirectoryLock::take("a test", path("new"));
    const Outcome outcome = infini("train run.yaml directory=new/");
    EXPECT_EQ(outcome.code, 0) << outcome.said;
    EXPECT_THAT(outcome.said, ::testing::HasSubstr("writing to new-2"));
  }
  EXPECT_FALSE(fs::exists(path("new"))) << "nothing was written to it";
  expect_done("train run.yaml --resume");
}

TEST_F(RunDirectory, OfAnEarlierRunIsNotTouched) {
  expect_done("train run.yaml");
  const Files before = files_of("run");
  for (const std::string next : {"run-2", "run-3"}) {
    const Outcome outcome = infini("train run.yaml seed=9");
    EXPECT_EQ(outcome.code, 0);
    EXPECT_THAT(outcome.said, ::testing::HasSubstr("writing to " + next));
    EXPECT_EQ(steps_in_log(next), kSixSteps);
    EXPECT_THAT(content(next + "/config.yaml"), ::testing::HasSubstr("directory: " + next));
  }
  EXPECT_TRUE(files_of("run") == before);
}

TEST_F(RunDirectory, HoldsTheNewestCheckpointsOnly) {
  expect_done("train run.yaml checkpoint.every=1 checkpoint.keep=2");
  EXPECT_EQ(steps_saved("run"), (std::vector<std::int64_t>{5, 6}));
}

}  // namespace
}  // namespace infini
