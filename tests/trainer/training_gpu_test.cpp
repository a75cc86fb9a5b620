// Training on a GPU: as on the CPU, and the same bytes every time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tensor/system_memory.h"
#include "tests/trainer/tiny_run.h"

namespace infini {
namespace {

const char* const kLanes = "data.sampler=lanes";

class GpuTraining : public testing::Test {
 protected:
  void SetUp() override {
    if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  }
  Training training(std::vector<std::string> overrides) {
    overrides.push_back("train.steps=50");
    return training_of(tiny_config(overrides), store_);
  }
  std::vector<double> losses(const std::vector<std::string>& overrides, int steps = 20) {
    Training run = training(overrides);
    std::vector<double> result;
    for (int i = 0; i < steps; ++i) result.push_back(run.step().loss);
    return result;
  }

  TempFolder folder_;
  std::shared_ptr<const TokenStore> store_ = tiny_store(folder_ / "data", kTinyLengths);
};

TEST_F(GpuTraining, IsChosenByItself) {
  EXPECT_EQ(training({"device=auto"}).device(), Device::kCuda);
  EXPECT_EQ(training({"device=cpu"}).device(), Device::kCpu);
}

TEST_F(GpuTraining, FollowsTheCpu) {
  for (const char* rule : {"model.memory=linear", "model.memory=delta", "model.memory=none"})
    for (const char* schedule : {"train.schedule=parallel", "train.schedule=streaming"}) {
      const std::vector<double> here = losses({"device=cpu", rule, schedule, kLanes});
      EXPECT_LT(relative_error(losses({"device=cuda", rule, schedule, kLanes}), here), 1e-3)
          << rule << ", " << schedule;
      EXPECT_LT(relative_error(
                    losses({"device=cuda", rule, schedule, kLanes, "train.compute=bf16"}), here),
                2e-2)
          << rule << ", " << schedule << " in bf16";
      EXPECT_LT(relative_error(
                    losses({"device=cuda", rule, schedule, kLanes, "train.compute=tf32"}), here),
                1e-2)
          << rule << ", " << schedule << " in tf32";
    }
}

TEST_F(GpuTraining, FollowsTheCpuInArchitecturesThatCarryGradients) {
  for (const std::vector<std::string>& architecture :
       {std::vector<std::string>{"model.architecture=rmt", "model.memory_tokens=3"},
        {"model.architecture=auto_compressor", "model.memory_tokens=2", "model.memory_segments=3"},
        {"model.architecture=transformer_fam", "model.memory_tokens=3"},
        {"model.architecture=megalodon", "model.ema_size=5"}})
    for (const char* schedule : {"train.schedule=parallel", "train.schedule=streaming"}) {
      const auto on = [&](const char* device, const char* compute) {
        std::vector<std::string> overrides{"model.memory=none", schedule, kLanes, device, compute};
        overrides.insert(overrides.end(), architecture.begin(), architecture.end());
        return losses(overrides);
      };
      SCOPED_TRACE(text(architecture[0], ", ", schedule));
      const std::vector<double> here = on("device=cpu", "train.compute=fp32");
      EXPECT_LT(relative_error(on("device=cuda", "train.compute=fp32"), here), 1e-3);
      EXPECT_LT(relative_error(on("device=cuda", "train.compute=bf16"), here), 2e-2);
      EXPECT_EQ(on("device=cuda", "train.compute=bf16"), on("device=cuda", "train.compute=bf16"));
    }
}

TEST_F(GpuTraining, RepeatsFiftyStepsByteForByte) {
  for (const char* optimizer : {"optim.kind=adamw", "optim.kind=adafactor"})
    for (const char* rule : {"model.memory=linear", "model.memory=delta"}) {
      const auto run = [&] {
        Training steps = training({"device=cuda", "train.compute=bf16", optimizer, rule, kLanes});
        for (int i = 0; i < 50; ++i) steps.step();
        return bytes_of(steps);
      };
      EXPECT_TRUE(run() == run()) << optimizer << ", " << rule;
    }
}

TEST_F(GpuTraining, ResumesAsIfNothingHadHappened) {
  for (const char* compute : {"train.compute=bf16", "train.compute=fp32"}) {
    const std::vector<std::string> overrides{"device=cuda", compute, kLanes};
    Training whole = training(overrides);
    for (int i = 0; i < 6; ++i) whole.step();
    Training before = training(overrides);
    for (int i = 0; i < 3; ++i) before.step();
    Training after = training(overrides);
    after.resume(Checkpoint(save_checkpoint(folder_ / compute, 3, before.contents())));
    for (int i = 0; i < 3; ++i) after.step();
    EXPECT_TRUE(bytes_of(whole) == bytes_of(after)) << compute;
  }
}

TEST_F(GpuTraining, ContinuesOnTheOtherDevice) {
  Training before = training({"device=cuda", kLanes});
  for (int i = 0; i < 3; ++i) before.step();
  const Checkpoint checkpoint(save_checkpoint(folder_ / "moved", 3, before.contents()));
  Training there = training({"device=cuda", kLanes}), here = training({"device=cpu", kLanes});
  there.resume(checkpoint);
  here.resume(checkpoint);
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(there.step().loss / here.step().loss, 1, 1e-4);
}

TEST_F(GpuTraining, BordersMayWaitInHostMemory) {
  const auto run = [&](const char* borders) {
    Training steps = training({"device=cuda", "train.schedule=streaming", borders});
    for (int i = 0; i < 4; ++i) steps.step();
    return bytes_of(steps);
  };
  const Bytes there = run("train.host_borders=0");
  EXPECT_TRUE(run("train.host_borders=1") == there);
}

TEST_F(GpuTraining, AsksTheSystemForNothingAfterTheSecondStep) {
  Training steps = training({"device=cuda", "train.compute=bf16", kLanes});
  for (int i = 0; i < 2; ++i) steps.step();
  const std::int64_t before = memory_statistics(Device::kCuda).system_allocations;
  for (int i = 0; i < 5; ++i) steps.step();
  EXPECT_EQ(memory_statistics(Device::kCuda).system_allocations, before);
}

TEST_F(GpuTraining, SkipsWhatIsNotFinite) {
  Training steps = training({"device=cuda"});
  steps.step();
  const Bytes before = bytes_of(steps);
  const Tensor& master = steps.model().parameters()["final_norm.weight"].master;
  const Tensor kept = master.clone();
  master.copy_from(Tensor::of(std::vector<float>(master.size(), INFINITY), master.shape()));
  EXPECT_TRUE(steps.step().skipped);
  master.copy_from(kept);
  EXPECT_TRUE(bytes_of(steps) == before);
  EXPECT_FALSE(steps.step().skipped);
}

}  // namespace
}  // namespace infini
