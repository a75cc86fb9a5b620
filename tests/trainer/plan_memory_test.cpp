// The memory that a plan predicts against what the allocator hands out in a run on the CPU.
#include <gtest/gtest.h>

#include "tests/trainer/plan_peaks.h"
#include "tests/trainer/tiny_run.h"

namespace infini {
namespace {

using Overrides = std::vector<std::string>;

class PlannedMemory : public testing::Test {
 protected:
  // Of tensors, over what the process held before.
  std::int64_t measured(const RunConfig& config) {
    const std::int64_t before = memory_statistics(Device::kCpu).in_use_bytes;
    reset_peak(Device::kCpu);
    Training training = training_of(config, store_);
    for (int i = 0; i < 2; ++i) training.step();
    return memory_statistics(Device::kCpu).peak_bytes - before;
  }

  void expect_right(const Overrides& overrides) {
    RunConfig config = tiny_config(kSize);
    std::string name;
    Overrides all = kSize;
    for (const std::string& each : overrides) {
      all.push_back(each);
      name += each + " ";
    }
    config = tiny_config(all);
    config.model.vocabulary = store_->vocabulary();
    const PlannedStep plan = planned_step(planned_rank(config, 1), Device::kCpu);
    expect_peak(measured(config), plan, config, name);
  }

  // Wide enough for activations to outweigh what is not planned: tensors of a few numbers.
  const Overrides kSize = {"model.d_model=64", "model.feed_forward=128", "data.row_tokens=64",
                           "data.batch_rows=4", "optim.adafactor.factored_from=16"};

  TempFolder folder_;
  std::shared_ptr<const TokenStore> store_ = tiny_store(folder_ / "data", {410, 230, 120, 350});
};

TEST_F(PlannedMemory, IsWhatTheAllocatorHandsOut) {
  for (const char* rule : {"linear", "delta", "none"})
    for (const char* schedule : {"parallel", "streaming", "streaming train.segments_per_tape=3",
                                 "parallel recompute", "streaming recompute"})
      for (const char* compute : {"fp32", "bf16"}) {
        const std::string text_of(schedule);
        const std::string first = text_of.substr(0, text_of.find(' '));
        Overrides overrides{text("model.memory=", rule), "train.schedule=" + first,
                            text("train.compute=", compute)};
        if (text_of.ends_with("recompute")) overrides.push_back("train.recompute_blocks=true");
        if (text_of.ends_with("=3")) overrides.push_back("train.segments_per_tape=3");
        expect_right(overrides);
      }
}

TEST_F(PlannedMemory, KnowsEveryActivationHeadCountAndTying) {
  for (const char* activation : {"gelu", "relu", "swiglu", "geglu"})
    for (const char* schedule : {"parallel", "streaming"})
      expect_right({text("model.activation=", activation), text("train.schedule=", schedule),
                    "model.kv_heads=1", "model.tied=false"});
}

TEST_F(PlannedMemory, KnowsBiasesAndNormsOfHeads) {
  for (const char* schedule : {"parallel", "streaming"})
    for (const char* compute : {"fp32", "bf16"})
      for (const Overrides& what :
           {Overrides{"model.projection_biases=true"}, Overrides{"model.head_norms=true"},
            Overrides{"model.offset_norms=true", "model.embedding_scale=4"},
            Overrides{"model.projection_biases=true", "model.head_norms=true",
                      "train.recompute_blocks=true"}}) {
        Overrides all{text("train.schedule=", schedule), text("train.compute=", compute)};
        all.insert(all.end(), what.begin(), what.end());
        expect_right(all);
      }
}

TEST_F(PlannedMemory, KnowsMemoryTokens) {
  for (const char* compute : {"fp32", "bf16"})
    for (const Overrides& how : {Overrides{}, Overrides{"train.schedule=streaming"},
                                 Overrides{"train.schedule=streaming", "train.segments_per_tape=3"},
                                 Overrides{"train.recompute_blocks=true"},
                                 Overrides{"train.accumulate=4"}, Overrides{"data.sampler=lanes"},
                                 Overrides{"data.sampler=lanes", "train.schedule=streaming"},
                                 Overrides{"data.row_tokens=60"}}) {
      for (const Overrides& architecture :
           {Overrides{"model.architecture=rmt"},
            Overrides{"model.architecture=auto_compressor", "model.memory_segments=4"}}) {
        Overrides all{"model.memory=none", "model.memory_tokens=3",
                      text("train.compute=", compute)};
        all.insert(all.end(), architecture.begin(), architecture.end());
        all.insert(all.end(), how.begin(), how.end());
        expect_right(all);
      }
    }
}

TEST_F(PlannedMemory, KnowsWhatInfiniIsComparedTo) {
  const Overrides architectures[] = {
      {"model.architecture=transformer_xl"},
      {"model.architecture=memorizing_transformer", "model.retrieval_tokens=24",
       "model.neighbours=3"},
      {"model.architecture=compressive_transformer"},
      {"model.architecture=compressive_transformer", "model.compression=mean_pool"},
      {"model.architecture=transformer_fam", "model.memory_tokens=3"},
      {"model.architecture=megalodon", "model.ema_size=4"}};
  for (const Overrides& architecture : architectures)
    for (const char* compute : {"fp32", "bf16"})
      for (const Overrides& how :
           {Overrides{}, Overrides{"train.schedule=streaming"},
            Overrides{"train.schedule=streaming", "train.segments_per_tape=3"},
            Overrides{"train.recompute_blocks=true"}, Overrides{"train.accumulate=4"},
            Overrides{"data.sampler=lanes"},
            Overrides{"data.sampler=lanes", "train.schedule=streaming"},
            Overrides{"data.row_tokens=60"}, Overrides{"model.cache_tokens=11"},
            Overrides{"model.kv_heads=1", "model.cache_tokens=40"}}) {
        if (architecture[0].ends_with("megalodon") && how.size() > 0 &&
            how.back().starts_with("model."))
          continue;  // it has neither
        Overrides all = architecture;
        all.insert(all.end(), {"model.memory=none", text("train.compute=", compute)});
        all.insert(all.end(), how.begin(), how.end());
        expect_right(all);
      }
}

TEST_F(PlannedMemory, KnowsEveryOptimizer) {
  for (const Overrides& optimizer :
       {Overrides{"optim.kind=adamw"}, Overrides{"optim.kind=adafactor"},
        Overrides{"optim.kind=adafactor", "optim.adafactor.momentum=0"}})
    expect_right(optimizer);
}

TEST_F(PlannedMemory, KnowsWhatIsFrozen) {
  for (const char* groups :
       {"[{pattern: '*.attention.gate'}, {pattern: '*.attention.*.weight'}, {pattern: '*', frozen: "
        "true}]",
        "[{pattern: embedding.weight, frozen: true}, {pattern: 'blocks.0.*', frozen: true}]",
        "[{pattern: '*.feed_forward.*', frozen: true}]"})
    for (const Overrides& how :
         {Overrides{"optim.kind=adamw"}, Overrides{"train.schedule=streaming"},
          Overrides{"train.recompute_blocks=true"}, Overrides{"train.compute=bf16"},
          Overrides{"model.activation=swiglu", "model.tied=false"},
          Overrides{"model.activation=relu", "model.memory=delta"},
          Overrides{"parallel.row_leaves=4"}}) {
      Overrides all = how;
      all.push_back(text("optim.groups=", groups));
      expect_right(all);
    }
  expect_right({"model.architecture=rmt", "model.memory=none", "model.memory_tokens=3",
                "optim.groups=[{pattern: 'memory_tokens.*'}, {pattern: '*', frozen: true}]"});
}

TEST_F(PlannedMemory, KnowsPartsOfAStep) {
  expect_right({"train.accumulate=2"});
  expect_right({"data.sampler=lanes"});
  expect_right({"data.sampler=lanes", "train.schedule=streaming", "model.memory=delta"});
  expect_right({"parallel.row_leaves=4"});
  expect_right({"parallel.row_leaves=1", "parallel.segment_leaves=4"});
  expect_right({"parallel.row_leaves=2", "parallel.segment_leaves=2", "model.memory=delta"});
  expect_right({"data.row_tokens=60"});
  expect_right({"data.row_tokens=60", "train.schedule=streaming"});
  expect_right({"train.schedule=streaming", "train.host_borders=1"});
}

}  // namespace
}  // namespace infini
