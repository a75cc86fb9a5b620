// A new run that begins with the values of another, or of an import, and how it is told apart from
// the other run going on.
#include "tests/trainer/pretrained.h"
#include "tests/trainer/program.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/export_model.h"
#include "trainer/run_config_file.h"

namespace infini {
namespace {

using testing::HasSubstr;

// What changes when a run is adapted: everything but the model, whose keys it does not repeat.
constexpr const char* kAdapted =
    "seed: 8\n"
    "directory: adapted\n"
    "init_from: run\n"
    "device: cpu\n"
    "model: {segment_tokens: 4}\n"
    "data: {source: store, store: data, row_tokens: 24, batch_rows: 2}\n"
    "optim: {kind: adamw, learning_rate: 0.001, warmup_steps: 1}\n"
    "train: {steps: 3}\n"
    "checkpoint: {every: 0}\n";

class InitFrom : public ProgramTest {
 protected:
  void SetUp() override {
    write("run.yaml", kTinyRun);
    write("adapted.yaml", kAdapted);
    store_ = tiny_store(path("data"), kTinyLengths);
  }
  void train_run(const std::string& overrides = "") { expect_done("train run.yaml " + overrides); }

  // A run of adapted.yaml before its first step.
  std::unique_ptr<Training> adapted(std::vector<std::string> overrides = {}) {
    overrides.push_back("init_from=" + path("run").string());
    std::unique_ptr<Training> training(
        new Training(training_of(read_run_config(path("adapted.yaml"), overrides), store_)));
    training->begin_from(Checkpoint(checkpoint_directory(path("run"))));
    return training;
  }
  std::string refusal(const std::vector<std::string>& overrides) {
    return message_of<ConfigError>([&] { adapted(overrides); });
  }

  std::shared_ptr<const TokenStore> store_;
};

TEST_F(InitFrom, BeginsWithTheValuesAndNothingElse) {
  train_run();
  const auto training = adapted();
  EXPECT_EQ(training->steps_done(), 0);
  const LoadedModel source = load_fp32(path("run"));
  for (const Parameter& parameter : training->model().parameters().all())
    EXPECT_TRUE(same_bytes(parameter.master, source.model->parameters()[parameter.name].master))
        << parameter.name;
  const ModelConfig& model = training->config().model;
  EXPECT_EQ(model.d_model, 16);
  EXPECT_EQ(model.layers, 2);
  EXPECT_EQ(model.vocabulary, 257);
  EXPECT_EQ(model.segment_tokens, 4) << "the file's own keys count";
}

TEST_F(InitFrom, MayChangeTheMemoryAndBeginWithFreshGates) {
  train_run("model.gate_mean=-3");
  const auto gates_of = [](Training& training) {
    return training.model().parameters()["blocks.0.attention.gate"].master.to_vector<double>();
  };
  const auto kept = adapted({"model.memory=delta", "model.gate_mean=2"});
  EXPECT_LT(gates_of(*kept)[0], -1);
  const auto fresh = adapted({"fresh_gates=true", "model.gate_mean=2", "model.gate_deviation=0"});
  EXPECT_EQ(gates_of(*fresh), (std::vector<double>{2, 2}));
  const auto none = adapted({"model.memory=none"});
  none->step();
  EXPECT_EQ(none->steps_done(), 1);
}

TEST_F(InitFrom, GivesAModelWithoutAMemoryOne) {
  train_run("model.memory=none");
  const auto training = adapted({"model.memory=linear", "model.gate_mean=-4"});
  EXPECT_NEAR(
      training->model().parameters()["blocks.1.attention.gate"].master.to_vector<double>()[1], -4,
      1);
  training->step();
}

TEST_F(InitFrom, TrainsResumesAndKnowsItsModelWithoutTheOther) {
  train_run();
  expect_done("train adapted.yaml directory=whole");
  EXPECT_EQ(infini("train adapted.yaml --stop-after 1").code, 75);
  std::filesystem::remove_all(path("run"));  // what a run began with it does not need again
  expect_done("train adapted.yaml --resume");
  EXPECT_EQ(shard("adapted", 3), shard("whole", 3));
  EXPECT_THAT(content("adapted/config.yaml"), HasSubstr("d_model: 16"));
}

TEST_F(InitFrom, TakesAnImportThroughTheProgram) {
  train_run("model.activation=swiglu");
  expect_done("export run hf");
  expect_done("import hf imported model.segment_tokens=8");
  expect_done("train adapted.yaml init_from=imported train.compute=fp32");
  EXPECT_THAT(content("adapted/config.yaml"), HasSubstr("activation: swiglu"));
  EXPECT_THAT(content("adapted/config.yaml"), HasSubstr("LlamaForCausalLM"));
  expect_done("export adapted out");
  EXPECT_TRUE(std::filesystem::exists(path("out/model.safetensors")));
  expect_done("plan adapted.yaml init_from=imported");
  expect_done("inspect imported");
}

TEST_F(InitFrom, HasConfigurationsToStartFrom) {
  train_run();
  const auto shipped = [&](const char* name) {
    return read_run_config(std::filesystem::path(INFINI_SOURCE_DIR) / "configs" / name,
                           {"init_from=" + path("run").string()});
  };
  const RunConfig adapt = shipped("adapt.yaml"), passkey = shipped("adapt-passkey.yaml"),
                  frozen = shipped("adapt-frozen.yaml");
  EXPECT_EQ(adapt.model.d_model, 16);
  EXPECT_EQ(adapt.model.segment_tokens, 2048);
  EXPECT_TRUE(adapt.fresh_gates);
  EXPECT_EQ(passkey.model.d_model, 16);
  EXPECT_EQ(passkey.data.passkey.row_lengths(passkey.model.segment_tokens),
            std::vector<std::int64_t>{5120});
  std::set<std::string> trained;
  for (const ParameterSpec& spec : parameter_specs(frozen.model, 1, 0, frozen_by(frozen.optim)))
    if (!spec.frozen && spec.name.starts_with("blocks.1.")) trained.insert(spec.name);
  EXPECT_THAT(trained, testing::UnorderedElementsAre(
                           "blocks.1.attention.gate", "blocks.1.attention.query.weight",
                           "blocks.1.attention.key.weight", "blocks.1.attention.value.weight",
                           "blocks.1.attention.output.weight"));
}

TEST_F(InitFrom, TellsBeginningAndContinuingApart) {
  train_run("model.activation=swiglu");
  expect_done("export run hf");
  expect_done("import hf imported model.segment_tokens=8");
  expect_refused("train adapted.yaml --resume", 2,
                 "--resume: adapted holds no checkpoint; without --resume a new run begins with "
                 "the values of init_from");
  expect_refused("train adapted.yaml directory=imported --resume", 2,
                 "is an import, which has values but no optimizer state and no place in the data; "
                 "begin a run with it by init_from, without --resume");
  expect_refused("train adapted.yaml directory=run", 2,
                 "init_from: run is in the run's own directory; --resume continues that run, and "
                 "a new one needs another directory");
  expect_refused(
      "train adapted.yaml init_from=hf", 2,
      "init_from: hf is a Hugging Face directory; bring it in with infini import hf OUT");
  expect_refused("train adapted.yaml init_from=nowhere", 2, "nowhere: no such checkpoint or run");
  expect_refused("train run.yaml fresh_gates=true", 2, "says nothing without init_from");
  // An import's folder is not a run's.
  expect_done("train run.yaml directory=imported");
  EXPECT_TRUE(std::filesystem::exists(path("imported-2/metrics.jsonl")));
}

TEST_F(InitFrom, RefusesAnotherModelOrTokenizer) {
  train_run("model.tied=false");
  EXPECT_THAT(
      refusal({"model.tied=true"}),
      HasSubstr("has head.weight, which this model does not; it is a checkpoint of another"));
  EXPECT_THAT(refusal({"model.d_model=24"}), HasSubstr("this model expects f32 [257, 24]"));
  EXPECT_THAT(refusal({"model.projection_biases=true"}),
              HasSubstr("has no blocks.0.attention.query.bias"));
  const auto config = read_run_config(
      path("adapted.yaml"),
      {"init_from=" + path("run").string(), "data.source=passkey", "model.segment_tokens=128"});
  auto source = make_source(config.data, config.model.segment_tokens, 1, 3);
  Training other(config, std::move(source), "another tokenizer");
  EXPECT_THAT(message_of<ConfigError>(
                  [&] { other.begin_from(Checkpoint(checkpoint_directory(path("run")))); }),
              HasSubstr("was trained with another tokenizer than the data has"));
}

}  // namespace
}  // namespace infini
