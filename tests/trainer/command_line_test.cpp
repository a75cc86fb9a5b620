// The program from outside: what a user types, reads and gets back as exit code when something is
// wrong, and that nothing is lost.
#include "tests/trainer/program.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class CommandLine : public ProgramTest {
 protected:
  void SetUp() override {
    write("run.yaml", "directory: " + run_.string() +
                          "\n"
                          "model: {layers: 1, d_model: 16, heads: 2, segment_tokens: 64}\n"
                          "data: {batch_rows: 1, passkey: {row_segments: [2]}}\n"
                          "train: {steps: 4}\n"
                          "checkpoint: {every: 2, keep: 0}\n"
                          "evaluate: {passkey: {prompts: 1, row_segments: [2]}}\n");
  }

  const fs::path run_ = path("run");
};

TEST_F(CommandLine, MistakesInTheConfigurationExitWith2) {
  const auto refused = [&](const std::string& arguments, const std::string& message) {
    expect_refused(arguments, 2, message);
  };
  refused("", "A subcommand is required");
  refused("trian run.yaml", "unknown command trian; did you mean train?");
  refused("train", "config is required");
  refused("train nowhere.yaml", "nowhere.yaml: no such configuration file");
  refused("train run.yaml train.step=3", "unknown key train.step; did you mean steps?");
  refused("train run.yaml train.steps=many", "train.steps is \"many\", expected an integer");
  refused("train run.yaml train.steps=0", "train.steps must be at least 1, got 0");
  write("twice.yaml", "seed: 1\nseed: 2\n");
  refused("train twice.yaml", "twice.yaml:2: key \"seed\" appears twice, first at twice.yaml:1");
  write("laughs.yaml",
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
        "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n");
  refused("train laughs.yaml", "more than 16 aliases");
  EXPECT_FALSE(fs::exists(run_));
}

TEST_F(CommandLine, NumbersOutOfRangeAreNamedWithWhatWasExpected) {
  expect_refused("train run.yaml --stop-after -1", 2,
                 "--stop-after: got -1, expected a number of at least 0");
  expect_refused("generate run --temperature nan", 2,
                 "--temperature: got nan, expected a number of at least 0");
  expect_refused("generate run --top-p 1.5", 2, "--top-p: got 1.5, expected a number from 0 to 1");
  expect_refused("reproduce table2 --scale cpu --minutes 0", 2,
                 "--minutes: got 0, expected a number above 0");
}

TEST_F(CommandLine, GroupThatFindsNoParameterIsNamed) {
  const Outcome outcome =
      infini("train run.yaml train.steps=1 'optim.groups=[{pattern: \"*.gaet\"}]'");
  EXPECT_EQ(outcome.code, 0) << outcome.said;
  EXPECT_THAT(outcome.said, HasSubstr("optim.groups.*.gaet: no parameter of this model has such"));
}

TEST_F(CommandLine, HelpOfEveryCommandExitsWith0) {
  for (const char* command :
       {"", "prepare", "train", "evaluate", "score", "generate", "inspect", "plan", "reproduce"}) {
    const Outcome outcome = infini(std::string(command) + " --help");
    EXPECT_EQ(outcome.code, 0) << command;
    EXPECT_THAT(outcome.said, HasSubstr("Usage: infini")) << command;
  }
}

TEST_F(CommandLine, InspectShowsConfigurationCheckpointAndRun) {
  EXPECT_THAT(infini("inspect --keys").said, HasSubstr("optim.learning_rate"));
  EXPECT_THAT(infini("inspect run.yaml train.steps=7").said, HasSubstr("steps: 7"));
  ASSERT_EQ(infini("train run.yaml").code, 0);
  const Outcome outcome = infini("inspect run");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.said, HasSubstr("step        4"));
  EXPECT_THAT(outcome.said, HasSubstr("embedding"));
  EXPECT_EQ(infini("inspect run/checkpoints/step-00000002").code, 0);
}

TEST_F(CommandLine, DamagedCheckpointExitsWith3AndThePreviousOneServes) {
  ASSERT_EQ(infini("train run.yaml").code, 0);
  const fs::path newest = run_ / "checkpoints" / "step-00000004";
  const fs::path shard = newest / "shard-00000-of-00001.h5";
  std::string bytes = read_file(shard);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  std::ofstream(shard, std::ios::binary) << bytes;

  const Outcome outcome = infini("train --resume run.yaml");
  EXPECT_EQ(outcome.code, 3);
  EXPECT_THAT(outcome.said, HasSubstr("shard-00000-of-00001.h5: is damaged"));
  EXPECT_THAT(outcome.said, HasSubstr("checkpoints/step-00000002; to go on from there"));

  fs::rename(newest, path("damaged"));
  EXPECT_EQ(infini("train --resume run.yaml").code, 0);
  EXPECT_EQ(find_latest(run_)->step(), 4);
}

TEST_F(CommandLine, AFullStandardOutputExitsWith4) {
  for (const char* const prints : {"inspect --keys", "inspect run.yaml", "plan run.yaml"}) {
    const Outcome outcome = infini(std::string(prints) + " > /dev/full");
    EXPECT_EQ(outcome.code, 4) << prints;
    EXPECT_THAT(outcome.said, HasSubstr("cannot write standard output")) << prints;
  }
}

TEST_F(CommandLine, AFileThatCannotBeWrittenIsRefusedBeforeTheWork) {
  expect_done("train run.yaml train.steps=1");
  for (const char* const command :
       {"evaluate run --output", "passkey run --output", "passkey run --figure",
        "score run --input run.yaml --output", "generate run --output"}) {
    expect_refused(std::string(command) + " no/file", 2,
                   "cannot write no/file: there is no folder no");
    expect_refused(std::string(command) + " run", 2, "cannot write run: it is a folder");
  }
}

TEST_F(CommandLine, ATableWithoutRoomForAPromptIsRefusedBeforeTraining) {
  expect_refused("train run.yaml model.segment_tokens=60 'evaluate.passkey.row_segments=[2, 1]'", 2,
                 "evaluate.passkey.row_segments: a row of 1 segments of 60 tokens; the shortest "
                 "prompt with 5 digits takes 67 tokens");
  EXPECT_FALSE(fs::exists(run_));
}

TEST_F(CommandLine, CheckpointOfAnotherModelExitsWith2) {
  ASSERT_EQ(infini("train run.yaml").code, 0);
  expect_refused("train --resume run.yaml model.d_model=32 train.steps=6", 2,
                 "model.d_model was 16 when it was saved and is 32 now");
  expect_refused("train run.yaml init_from=run directory=next model.d_model=32", 2,
                 "another model");
}

TEST_F(CommandLine, SigtermSavesAndExitsWith75EvenWhenRepeated) {
  const Outcome outcome =
      infini_until_first_step("train run.yaml train.steps=1000000 checkpoint.every=0", "run",
                              "kill -TERM $job; kill -INT $job; kill -TERM $job");
  EXPECT_EQ(outcome.code, 75) << outcome.said;
  EXPECT_THAT(outcome.said, HasSubstr("--resume"));
  const auto latest = find_latest(run_);
  ASSERT_TRUE(latest.has_value());
  EXPECT_GE(latest->step(), 1);
  const std::string more = std::to_string(latest->step() + 2);
  EXPECT_EQ(infini("train --resume run.yaml train.steps=" + more).code, 0);
  EXPECT_EQ(find_latest(run_)->step(), latest->step() + 2);
}

TEST_F(CommandLine, FullDiskCostsTheCheckpointNotTheRun) {
  // Files may not grow beyond 8 KiB: logs fit, checkpoints do not.
  const Outcome outcome = shell("trap '' XFSZ; ulimit -f 16; $infini train run.yaml train.steps=6");
  EXPECT_EQ(outcome.code, 4) << outcome.said;
  EXPECT_THAT(outcome.said, HasSubstr("CHECKPOINT OF STEP 2 WAS NOT SAVED"));
  EXPECT_THAT(outcome.said, HasSubstr("File too large"));
  EXPECT_THAT(read_file(run_ / "metrics.jsonl"), HasSubstr("\"step\": 6"));
  EXPECT_TRUE(list_checkpoints(run_).empty());
}

}  // namespace
}  // namespace infini
