// An interrupted run is the same run: what a new process goes on to do equals, byte for byte, what
// the unbroken one did.
#include "tests/data/example_fixtures.h"
#include "tests/trainer/program.h"
#include "tests/trainer/tiny_run.h"

namespace infini {
namespace {

struct Variant {
  const char* name;
  const char* overrides;
  const char* held;  // a buffer that the checkpoint of this variant must hold
};

void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

const Variant kVariants[] = {
    {"crops_adafactor", "", "optimizer/embedding.weight/row_mean"},
    {"crops_adamw", "optim.kind=adamw optim.learning_rate=0.01",
     "optimizer/embedding.weight/square"},
    {"lanes_adafactor", "data.sampler=lanes", "memory/1/normalizer"},
    {"lanes_adamw", "data.sampler=lanes optim.kind=adamw optim.learning_rate=0.01",
     "memory/1/matrix"},
    {"lanes_delta_bf16",
     "data.sampler=lanes train.compute=bf16 model.memory=delta train.schedule=streaming",
     "memory/0/matrix"},
    {"lanes_transformer_xl",
     "data.sampler=lanes model.architecture=transformer_xl model.memory=none model.cache_tokens=11",
     "memory/1/cached"},
    {"lanes_transformer_xl_bf16",
     "data.sampler=lanes model.architecture=transformer_xl model.memory=none train.compute=bf16 "
     "train.schedule=streaming train.recompute_blocks=true",
     "memory/0/present"},
    {"lanes_memorizing_transformer",
     "data.sampler=lanes model.architecture=memorizing_transformer model.memory=none "
     "model.retrieval_tokens=19 model.neighbours=5",
     "memory/0/pairs"},
    {"lanes_memorizing_transformer_bf16",
     "data.sampler=lanes model.architecture=memorizing_transformer model.memory=none "
     "train.compute=bf16 train.schedule=streaming train.recompute_blocks=true "
     "model.retrieval_tokens=30 model.retrieval_layer=2",
     "memory/1/pairs_present"},
    {"lanes_compressive_transformer",
     "data.sampler=lanes model.architecture=compressive_transformer model.memory=none "
     "model.cache_tokens=11 model.compressed_tokens=5 model.compression_rate=3",
     "memory/0/compressed"},
    {"lanes_compressive_transformer_bf16",
     "data.sampler=lanes model.architecture=compressive_transformer model.memory=none "
     "train.compute=bf16 train.schedule=streaming train.recompute_blocks=true",
     "memory/1/compressed_present"},
    {"lanes_rmt",
     "data.sampler=lanes model.architecture=rmt model.memory=none model.memory_tokens=3",
     "memory/0/vectors"},
    {"lanes_rmt_bf16",
     "data.sampler=lanes model.architecture=rmt model.memory=none model.memory_tokens=2 "
     "train.compute=bf16 train.schedule=streaming train.recompute_blocks=true",
     "memory/0/present"},
    {"lanes_auto_compressor",
     "data.sampler=lanes model.architecture=auto_compressor model.memory=none "
     "model.memory_tokens=2 model.memory_segments=3 train.schedule=streaming",
     "memory/0/vectors"},
    {"lanes_transformer_fam",
     "data.sampler=lanes model.architecture=transformer_fam model.memory=none "
     "model.memory_tokens=3 model.cache_tokens=11",
     "memory/1/feedback"},
    {"lanes_transformer_fam_bf16",
     "data.sampler=lanes model.architecture=transformer_fam model.memory=none "
     "model.memory_tokens=2 train.compute=bf16 train.schedule=streaming "
     "train.recompute_blocks=true",
     "memory/0/window"},
    {"lanes_megalodon",
     "data.sampler=lanes model.architecture=megalodon model.memory=none model.ema_size=5",
     "memory/1/averages"},
    {"lanes_megalodon_bf16",
     "data.sampler=lanes model.architecture=megalodon model.memory=none train.compute=bf16 "
     "train.schedule=streaming train.recompute_blocks=true",
     "memory/0/norm_tokens"},
    {"passkey",
     "data.source=passkey data.passkey.row_segments=[1,2] model.segment_tokens=80 "
     "evaluate.passkey.prompts=1",
     "optimizer/embedding.weight/momentum"},
    {"examples",
     "data.source=examples data.store=examples data.row_tokens=64 data.examples.prompt=A "
     "data.examples.sorted_steps=2",
     "optimizer/embedding.weight/momentum"},
};

class ResumedRun : public ProgramTest, public ::testing::WithParamInterface<Variant> {
 protected:
  void SetUp() override {
    write("run.yaml", kTinyRun);
    tiny_store(path("data"), kTinyLengths);
    example_store(path("examples/train.h5"),
                  {{40, {3, 5}}, {12, {4}}, {30, {6, 1}}, {3, {2}}, {25, {3, 4}}, {8, {2}}});
  }

  // Losses and gradient norms, step by step, to the last digit.
  std::vector<std::string> steps_of(const std::string& run) const {
    std::vector<std::string> steps;
    for (const nlohmann::json& line : metrics(run)) {
      std::string step;
      for (const char* name : {"step", "loss", "token_loss", "learning_rate", "gradient_norm"})
        step += line.at(name).dump() + " ";
      steps.push_back(step);
    }
    return steps;
  }
  std::vector<std::string> names_of_buffers(const std::string& run) const {
    std::vector<std::string> names;
    for (const BufferInfo& info : find_latest(path(run))->buffers()) names.push_back(info.name);
    return names;
  }
};

TEST_P(ResumedRun, SixStepsAreThreeStepsANewProcessAndThreeSteps) {
  const std::string overrides = GetParam().overrides;
  expect_done("train run.yaml directory=unbroken " + overrides);
  const Outcome stopped = infini("train run.yaml directory=broken --stop-after 3 " + overrides);
  EXPECT_EQ(stopped.code, 75) << stopped.said;
  EXPECT_THAT(stopped.said, ::testing::HasSubstr("stopped at step 3 of 6"));
  EXPECT_EQ(metrics("broken").size(), 3u);
  expect_done("train run.yaml directory=broken --resume " + overrides);

  EXPECT_EQ(steps_of("broken"), steps_of("unbroken"));
  EXPECT_EQ(steps_of("broken").size(), 6u);
  EXPECT_TRUE(shard("broken", 6) == shard("unbroken", 6));
  EXPECT_THAT(names_of_buffers("broken"), ::testing::Contains(GetParam().held));
}

INSTANTIATE_TEST_SUITE_P(OfEveryKind, ResumedRun, ::testing::ValuesIn(kVariants),
                         [](const auto& variant) { return std::string(variant.param.name); });

TEST_F(ResumedRun, AfterSigtermEqualsTheUnbrokenOne) {
  // Where the signal strikes is chance; with a constant rate no step depends on how many follow.
  const std::string lanes = "train run.yaml data.sampler=lanes optim.schedule=constant ";
  const Outcome stopped = infini_until_first_step(lanes + "directory=broken train.steps=1000000",
                                                  "broken", "kill -TERM $job");
  EXPECT_EQ(stopped.code, 75) << stopped.said;
  const std::int64_t steps = find_latest(path("broken"))->step() + 20;
  const std::string all = " train.steps=" + std::to_string(steps);
  expect_done(lanes + "directory=broken --resume" + all);
  expect_done(lanes + "directory=unbroken" + all);
  EXPECT_EQ(steps_of("broken"), steps_of("unbroken"));
  EXPECT_TRUE(shard("broken", steps) == shard("unbroken", steps));
}

TEST_F(ResumedRun, DoesNotBecomeAnotherRun) {
  infini("train run.yaml directory=broken --stop-after 3");
  const std::string log = content("broken/metrics.jsonl");
  for (const auto& [change, said] :
       {std::pair("seed=4", "seed was 3 when it was saved and is 4 now"),
        std::pair("model.memory=delta",
                  "model.memory was linear when it was saved and is delta now"),
        std::pair("data.batch_rows=8", "data.batch_rows was 4 when it was saved and is 8 now"),
        std::pair("data.sampler=lanes", "data.sampler was crops when")})
    expect_refused(std::string("train run.yaml directory=broken --resume ") + change, 2, said);
  EXPECT_EQ(content("broken/metrics.jsonl"), log);
}

TEST_F(ResumedRun, MayFindItsDataElsewhereAndSaysWhatElseTrainsDifferently) {
  expect_done("train run.yaml directory=unbroken");
  infini("train run.yaml directory=broken --stop-after 3");
  std::filesystem::rename(path("data"), path("moved"));
  const Outcome outcome =
      infini("train run.yaml directory=broken --resume data.store=moved optim.weight_decay=0.5");
  EXPECT_EQ(outcome.code, 0) << outcome.said;
  EXPECT_THAT(outcome.said,
              ::testing::HasSubstr("from here on optim.weight_decay is 0.5, it was 0"));
  EXPECT_EQ(steps_of("broken")[3], steps_of("unbroken")[3]);  // the same rows
  EXPECT_NE(steps_of("broken")[5], steps_of("unbroken")[5]);
}

// What a checkpoint holds is all needed: without any one piece the run goes on differently.
class CheckpointPieces : public ::testing::Test {
 protected:
  using Change = std::function<void(CheckpointContents&)>;

  Bytes unbroken() {
    Training training = training_of(config_, store_);
    for (int i = 0; i < 6; ++i) training.step();
    return bytes_of(training);
  }
  Bytes resumed(const Change& change) {
    Training before = training_of(config_, store_);
    for (int i = 0; i < 3; ++i) before.step();
    CheckpointContents contents = before.contents();
    change(contents);
    Training after = training_of(config_, store_);
    after.resume(Checkpoint(save_checkpoint(folder_.path(), 3, contents)));
    for (int i = 0; i < 3; ++i) after.step();
    return bytes_of(after);
  }
  static Change zeros_in(const std::string& buffers) {
    return [buffers](CheckpointContents& contents) {
      int changed = 0;
      for (const NamedBuffer& buffer : contents.buffers)
        if (buffer.name.find(buffers) != std::string::npos) {
          std::memset(buffer.data, 0, buffer.bytes);
          ++changed;
        }
      EXPECT_GT(changed, 0) << buffers;
    };
  }
  static Change position(const std::string& name, std::int64_t value) {
    return [name, value](CheckpointContents& contents) {
      auto position = nlohmann::json::parse(contents.position_json);
      position.at(name) = value;
      contents.position_json = position.dump();
    };
  }

  TempFolder folder_;
  std::shared_ptr<const TokenStore> store_ = tiny_store(folder_ / "data", kTinyLengths);
  RunConfig config_ =
      tiny_config({"data.sampler=lanes", "optim.kind=adamw", "optim.learning_rate=0.01"});
};

TEST_F(CheckpointPieces, AllOfThemContinueTheRun) {
  EXPECT_TRUE(resumed([](CheckpointContents&) {}) == unbroken());
}

TEST_F(CheckpointPieces, NoneCanBeLeftOut) {
  const Bytes whole = unbroken();
  for (const char* piece :
       {"blocks.1.attention.query", "optimizer/embedding.weight/mean",
        "optimizer/embedding.weight/square", "memory/0/matrix", "memory/1/normalizer"})
    EXPECT_FALSE(resumed(zeros_in(piece)) == whole) << piece;
  EXPECT_FALSE(resumed(position("step", 0)) == whole);
  EXPECT_FALSE(resumed(position("optimizer_steps", 0)) == whole);
}

}  // namespace
}  // namespace infini
