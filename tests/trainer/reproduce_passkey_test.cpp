// Table 3 by one command: a model that reads a corpus, and one that goes on from it with the task.
#include "tests/trainer/program.h"
#include "tests/trainer/tiny_run.h"
#include "tests/trainer/xml_check.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

class ReproducePasskeys : public ProgramTest {
 protected:
  void SetUp() override {
    write("configs/small/run.yaml", kTinyRun);
    write("configs/small/tuned.yaml",
          "seed: 3\n"
          "device: cpu\n"
          "model: {layers: 2, d_model: 16, heads: 2, feed_forward: 32, segment_tokens: 8}\n"
          "data: {source: passkey, batch_rows: 2, passkey: {digits: 2, row_tokens: [601]}}\n"
          "optim: {kind: adamw, learning_rate: 0.01}\n"
          "train: {steps: 3}\n"
          "checkpoint: {every: 0}\n"
          "evaluate: {passkey: {row_segments: [80], prompts: 1}}\n");
    write_table("[600, 1024]");
    tiny_store(path("data"), kTinyLengths);
    save_tokenizer(ByteTokenizer(), path("data/tokenizer.model"));
  }
  void write_table(const std::string& lengths, const std::string& origin = "read") {
    write("configs/small/table3.yaml",
          "title: Passkeys\n"
          "kind: passkey\n"
          "corpora: [{name: bytes, title: Bytes, store: data}]\n"
          "rows:\n"
          "  - {name: read, title: Only read, config: run.yaml,\n"
          "     quoted: [{of: \"1024\", value: 14/13/98}]}\n"
          "  - {name: tuned, config: tuned.yaml, from: " +
              origin +
              "}\n"
              "  - {name: local, config: run.yaml, overrides: [model.memory=none]}\n"
              "passkey: {lengths: " +
              lengths +
              ", prompts: 3}\n"
              "figures: [passkeys]\n");
  }
  Json runs_of(const std::string& output, int row) const {
    return Json::parse(content(output + "/results.json"))
        .at("rows")
        .at(row)
        .at("corpora")
        .at(0)
        .at("runs");
  }
};

TEST_F(ReproducePasskeys, TrainsOneRowFromAnotherAndAsksBoth) {
  expect_done("reproduce table3 --scale small --output out");

  // The row's run is the same as by hand.
  expect_done(
      "train configs/small/tuned.yaml init_from=out/bytes/read/seed-1 seed=1 "
      "data.passkey.tokenizer=data/tokenizer.model directory=alone");
  EXPECT_TRUE(shard("alone", 3) == shard("out/bytes/tuned/seed-1", 3));

  // And its figures are those of the command.
  expect_done("passkey alone --lengths 600,1024 --prompts 3 --output alone.json");
  const Json run = runs_of("out", 1).at(0), command = Json::parse(content("alone.json"));
  ASSERT_EQ(run.at("passkeys").size(), 12U);
  for (std::size_t i = 0; i < 12; ++i) {
    const Json& ours = run.at("passkeys")[i];
    const Json& theirs = command.at("cells")[i];
    EXPECT_EQ(ours.at("position"), theirs.at("place"));
    for (const char* key : {"tokens", "memory", "prompts", "exact", "digits", "right_digits"})
      EXPECT_EQ(ours.at(key), theirs.at(key)) << key << " of " << ours;
  }
  EXPECT_EQ(run.at("training_tokens"), 3 * 2 * 601);
  EXPECT_EQ(runs_of("out", 2).at(0).at("passkeys").size(), 6U);  // no memory to force off

  const std::string table = content("out/table.md");
  EXPECT_THAT(table, HasSubstr("| model | 600 | 1K |"));
  EXPECT_THAT(table, HasSubstr("| Only read, quoted |  | 14/13/98 |"));
  EXPECT_THAT(table, HasSubstr("| tuned, memory off | "));
  EXPECT_THAT(table, Not(HasSubstr("local, memory off")));
  EXPECT_EQ(xml_fault(content("out/passkeys-bytes-tuned.svg")), "");
  EXPECT_THAT(content("out/timings.json"), HasSubstr("peak_bytes"));
}

TEST_F(ReproducePasskeys, InPartsIsTheSameAsAtOnce) {
  expect_done("reproduce table3 --scale small --output whole");
  int calls = 1, code = 75;
  for (; calls < 60 && code == 75; ++calls)
    code = infini("reproduce table3 --scale small --output parts --minutes 0.0001").code;
  EXPECT_EQ(code, 0);
  EXPECT_GE(calls, 15);  // one call for a cell
  EXPECT_EQ(content("parts/results.json"), content("whole/results.json"));
}

TEST_F(ReproducePasskeys, MeasuresWhatATableAsksForLater) {
  expect_done("reproduce table3 --scale small --rows read");
  const std::string run = "runs/reproduce/table3-small/bytes/read/seed-1/";
  const Json before = Json::parse(content(run + "result.json")).at("passkeys");
  const auto trained = fs::last_write_time(path(run + "metrics.jsonl"));
  write_table("[600, 700, 1024]");
  expect_done("reproduce table3 --scale small --rows read");
  const Json after = Json::parse(content(run + "result.json")).at("passkeys");
  EXPECT_EQ(after.size(), 18U);
  EXPECT_EQ(after[0], before[0]);
  EXPECT_EQ(after[17], before[11]);
  EXPECT_EQ(fs::last_write_time(path(run + "metrics.jsonl")), trained);
}

TEST_F(ReproducePasskeys, TrainsWhatARowBeginsWith) {
  expect_done("reproduce table3 --scale small --rows tuned");
  EXPECT_TRUE(fs::exists(path("runs/reproduce/table3-small/bytes/read/seed-1/result.json")));
  EXPECT_FALSE(fs::exists(path("runs/reproduce/table3-small/bytes/local")));
  // A table may be moved with all its runs.
  fs::rename(path("runs/reproduce/table3-small"), path("moved"));
  const Outcome moved = infini("reproduce table3 --scale small --rows tuned --output moved");
  EXPECT_EQ(moved.code, 0) << moved.said;
  EXPECT_THAT(moved.said, Not(HasSubstr("training")));
}

TEST_F(ReproducePasskeys, RefusesWhatItCannotAsk) {
  write_table("[600, 1024]", "local");
  expect_refused("reproduce table3 --scale small", 2,
                 "rows: tuned is from local, which is not a row before it");
  write_table("[]");
  expect_refused("reproduce table3 --scale small", 2, "passkey.lengths must name tokens");
  write_table("[600]");  // of which nothing is quoted
  expect_refused("reproduce table3 --scale small", 2, "rows: read quotes 1024; expected memory");
  EXPECT_FALSE(fs::exists(path("runs")));
}

}  // namespace
}  // namespace infini
