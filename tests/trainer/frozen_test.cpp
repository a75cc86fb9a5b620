// What a frozen group of optim.groups promises: its parameters stay as they are and cost no memory
// beside their values, and the rest trains as it would without.
#include "tests/trainer/pretrained.h"
#include "tests/trainer/program.h"
#include "tests/trainer/tiny_run.h"

namespace infini {
namespace {

using testing::HasSubstr;

// As configs/adapt-frozen.yaml has it, and the other way round: what comes first and what comes
// last.
constexpr const char* kAttention =
    "optim.groups=[{pattern: '*.attention.gate', learning_rate: 0.01},"
    "{pattern: '*.attention.*.weight'}, {pattern: '*', frozen: true}]";
constexpr const char* kUpper =
    "optim.groups=[{pattern: embedding.weight, frozen: true}, {pattern: 'blocks.0.*', frozen: "
    "true}]";
constexpr const char* kEnds =
    "optim.groups=[{pattern: embedding.weight}, {pattern: head.weight}, {pattern: '*', frozen: "
    "true}]";

class FrozenTraining : public ::testing::Test {
 protected:
  Training training(std::vector<std::string> overrides) {
    return training_of(tiny_config(overrides), store_);
  }
  std::string refusal(const std::vector<std::string>& overrides) {
    return message_of<ConfigError>([&] { training(overrides); });
  }

  TempFolder folder_;
  std::shared_ptr<const TokenStore> store_ = tiny_store(folder_ / "data", kTinyLengths);
};

TEST_F(FrozenTraining, LeavesEveryFrozenByteAndChangesTheRest) {
  for (const char* groups : {kAttention, kUpper, kEnds})
    for (const char* how :
         {"train.schedule=parallel", "train.schedule=streaming", "train.recompute_blocks=true",
          "train.compute=bf16", "optim.kind=adamw", "model.memory=delta", "model.activation=swiglu",
          "parallel.row_leaves=2", "train.accumulate=2"}) {
      SCOPED_TRACE(text(groups, " ", how));
      Training run = training({groups, how, "model.tied=false", "optim.weight_decay=0.1"});
      const Bytes before = bytes_of(run);
      for (int i = 0; i < 3; ++i) EXPECT_FALSE(run.step().skipped);
      const Bytes after = bytes_of(run);
      for (const Parameter& parameter : run.model().parameters().all())
        EXPECT_EQ(before.at(parameter.name) == after.at(parameter.name), parameter.frozen)
            << parameter.name;
    }
}

TEST_F(FrozenTraining, GivesWhatTrainsTheGradientsThatItHasInTheWholeModel) {
  for (const char* groups : {kAttention, kUpper, kEnds})
    for (const char* how :
         {"train.schedule=parallel", "train.schedule=streaming", "train.recompute_blocks=true",
          "model.activation=swiglu", "model.memory=delta",
          "model.architecture=compressive_transformer", "model.architecture=megalodon"}) {
      SCOPED_TRACE(text(groups, " ", how));
      std::vector<std::string> base{how, "model.tied=false"};
      if (std::string(how).starts_with("model.architecture")) base.push_back("model.memory=none");
      Training whole = training(base);
      base.push_back(groups);
      Training part = training(base);
      whole.step();
      const double norm = part.step().gradient_norm;
      double squares = 0;
      for (const Parameter& parameter : part.model().parameters().all()) {
        if (parameter.frozen) continue;
        const auto gradient = parameter.gradient.to_vector<double>();
        EXPECT_EQ(gradient, whole.model().parameters()[parameter.name].gradient.to_vector<double>())
            << parameter.name;
        for (const double each : gradient) squares += each * each;
      }
      EXPECT_NEAR(norm, std::sqrt(squares), 1e-6 * norm);
    }
}

TEST_F(FrozenTraining, HoldsNoGradientAndNoStateOfIt) {
  const auto held = [&](const std::vector<std::string>& overrides) {
    const std::int64_t before = memory_statistics(Device::kCpu).in_use_bytes;
    Training run = training(overrides);
    for (const auto& [name, bytes] : bytes_of(run))
      for (const Parameter& parameter : run.model().parameters().all())
        EXPECT_FALSE(parameter.frozen && name.starts_with("optimizer/" + parameter.name)) << name;
    const Parameters& parameters = run.model().parameters();
    EXPECT_EQ(parameters.gradients().size(), parameters.count() - parameters.frozen_count());
    return std::pair(memory_statistics(Device::kCpu).in_use_bytes - before,
                     parameters.frozen_count());
  };
  const auto [whole, none] = held({"optim.kind=adamw", "model.d_model=64"});
  const auto [part, frozen] = held({"optim.kind=adamw", "model.d_model=64", kAttention});
  EXPECT_EQ(none, 0);
  // A gradient and two means of fp32; the allocator rounds.
  EXPECT_NEAR(static_cast<double>(whole - part), 3.0 * 4 * static_cast<double>(frozen),
              0.02 * static_cast<double>(whole));
}

TEST_F(FrozenTraining, GoesOnFromACheckpointAsIfUnbroken) {
  for (const char* kind : {"optim.kind=adamw", "optim.kind=adafactor"}) {
    const std::vector<std::string> overrides{kAttention, kind, "data.sampler=lanes"};
    Training unbroken = training(overrides), before = training(overrides),
             after = training(overrides);
    for (int i = 0; i < 6; ++i) unbroken.step();
    for (int i = 0; i < 3; ++i) before.step();
    after.resume(Checkpoint(save_checkpoint(folder_ / kind, 3, before.contents())));
    for (int i = 0; i < 3; ++i) after.step();
    EXPECT_TRUE(bytes_of(after) == bytes_of(unbroken)) << kind;
  }
}

TEST_F(FrozenTraining, RefusesToGoOnWithOtherFrozenParameters) {
  Training saved = training({kAttention});
  const Checkpoint checkpoint(save_checkpoint(folder_.path(), 0, saved.contents()));
  const auto resumed = [&](const std::vector<std::string>& overrides) {
    return message_of<ConfigError>([&] { training(overrides).resume(checkpoint); });
  };
  EXPECT_THAT(resumed({}), HasSubstr("embedding.weight was frozen when it was saved, but "
                                     "optim.groups train it now; --resume goes on with what"));
  EXPECT_THAT(resumed({kUpper}), HasSubstr("blocks.0.attention.query.weight trained when it was "
                                           "saved, but optim.groups freeze it now"));
  EXPECT_NO_THROW(training({kUpper}).begin_from(checkpoint));
}

TEST_F(FrozenTraining, RefusesGroupsThatCannotBeMeant) {
  EXPECT_EQ(refusal({"optim.groups=[{pattern: '*.moe.*', frozen: true}]"}),
            "optim.groups.*.moe.*.frozen = true, but no parameter of this model has such a name");
  EXPECT_EQ(refusal({"optim.groups=[{pattern: '*'}, {pattern: '*norm*', frozen: true}]"}),
            "optim.groups.*norm*.frozen = true, but groups before it match all that it does; the "
            "first pattern that matches counts");
  EXPECT_EQ(refusal({"optim.groups=[{pattern: '*', frozen: true}]"}),
            "optim.groups freeze every parameter of this model, so that nothing trains");
  EXPECT_EQ(refusal({"optim.groups=[{pattern: '*.key.weight', frozen: true}]"}),
            "blocks.0.attention.query.weight trains, but blocks.0.attention.key.weight is frozen: "
            "they are computed as one matrix, all of which trains or nothing");
}

class FrozenRun : public ProgramTest {};

TEST_F(FrozenRun, SaysHowManyTrainAndIsSavedPlannedAndExportedWhole) {
  write("run.yaml", kTinyRun);
  tiny_store(path("data"), kTinyLengths);
  const std::string groups = std::string(" \"") + kAttention + "\"";
  const std::string swiglu = "model.activation=swiglu ";
  expect_done("train run.yaml directory=base train.steps=1 " + swiglu);
  const Outcome said = infini("train run.yaml init_from=base " + swiglu + groups);
  EXPECT_EQ(said.code, 0) << said.said;
  // Two blocks, each with four projections of 16 by 16 and two gates.
  EXPECT_THAT(said.said, HasSubstr("of which 2052 train and "));
  EXPECT_THAT(said.said, HasSubstr(" are frozen, on one rank"));
  const LoadedModel base = load_fp32(path("base")), adapted = load_fp32(path("run"));
  for (const char* frozen : {"embedding.weight", "blocks.1.feed_forward.down.weight"})
    EXPECT_EQ(base.model->parameters()[frozen].value.to_vector<float>(),
              adapted.model->parameters()[frozen].value.to_vector<float>());
  expect_done("export run out");
  const Outcome plan = infini("plan run.yaml " + swiglu + groups);
  EXPECT_THAT(plan.said, HasSubstr("of which it updates 2,052; "));
  EXPECT_THAT(plan.said, HasSubstr(" are frozen\n"));
  expect_refused("plan run.yaml 'optim.groups=[{pattern: \"*.key.weight\", frozen: true}]'", 2,
                 "they are computed as one matrix, all of which trains or nothing");
}

}  // namespace
}  // namespace infini
