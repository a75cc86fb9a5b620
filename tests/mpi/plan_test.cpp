// The memory that a plan predicts for a rank among several against what that rank holds.
#include "distributed/layout.h"
#include "tests/mpi/ranks.h"
#include "tests/trainer/plan_peaks.h"
#include "tests/trainer/tiny_run.h"

namespace infini {
namespace {

const std::string kFrozen =
    "optim.groups=[{pattern: '*.attention.*'}, {pattern: '*', frozen: true}]";
const std::vector<std::vector<std::string>> kAxesOfTwo = {
    {"parallel.data=2"},
    {"parallel.segment=2"},
    {"parallel.tensor=2"},
    {"parallel.tensor=2", "train.recompute_blocks=true", "model.activation=swiglu"},
    {"parallel.shard=optimizer"},
    {"parallel.shard=gradients"},
    {"parallel.shard=gradients", "model.tied=false"},
    {"parallel.shard=gradients", "train.recompute_blocks=true", "train.compute=bf16"},
    {"parallel.shard=gradients", "train.schedule=streaming"},
    {"parallel.shard=parameters", "train.recompute_blocks=true"},
    {"parallel.shard=parameters", "train.recompute_blocks=true", "model.tied=false"},
    {"parallel.shard=parameters", "train.recompute_blocks=true", "train.compute=bf16"},
    {"parallel.shard=parameters", "train.recompute_blocks=true", "optim.kind=adamw"},
    {"parallel.shard=parameters", "train.recompute_blocks=true", "parallel.segment=2"},
    {"parallel.shard=parameters", "train.recompute_blocks=true", "train.schedule=streaming"},
    {"parallel.shard=parameters", "train.recompute_blocks=true", "model.layers=6"},
    {kFrozen},
    {kFrozen, "parallel.shard=optimizer"},
    {kFrozen, "parallel.shard=gradients"},
    {kFrozen, "parallel.shard=parameters", "train.recompute_blocks=true"},
};
const std::vector<std::vector<std::string>> kAxesOfFour = {
    {"parallel.tensor=2", "parallel.segment=2"},
    {"parallel.tensor=2", "parallel.shard=optimizer"},
    {"parallel.tensor=2", "parallel.shard=gradients"},
    {"parallel.tensor=2", "parallel.shard=parameters", "train.recompute_blocks=true"},
};

void expect_planned(int count, const std::vector<std::vector<std::string>>& axes) {
  Communicator ranks;
  if (count > test_world().size() || !first_ranks(count, ranks)) return;
  TempFolder folder;
  const std::shared_ptr<const TokenStore> store = tiny_store(folder / "data", {410, 230, 120, 350});
  for (const char* rule : {"linear", "delta"})
    for (const std::vector<std::string>& axis : axes) {
      std::vector<std::string> overrides{"model.d_model=64", "model.feed_forward=128",
                                         "data.row_tokens=64", text("model.memory=", rule)};
      overrides.insert(overrides.end(), axis.begin(), axis.end());
      RunConfig config = tiny_config(overrides);
      config.model.vocabulary = (store->vocabulary() + 1) / 2 * 2;
      auto source = make_source(config.data, config.model.segment_tokens,
                                static_cast<std::uint64_t>(config.seed), config.train.steps, store);
      const std::int64_t before = memory_statistics(Device::kCpu).in_use_bytes;
      reset_peak(Device::kCpu);
      std::vector<double> peaks;
      {
        Training training(config, std::move(source), store->tokenizer().serialise(),
                          make_layout(ranks, config.parallel));
        for (int i = 0; i < 2; ++i) training.step();
        peaks =
            ranks.gather(static_cast<double>(memory_statistics(Device::kCpu).peak_bytes - before));
      }
      // The plan is of the rank that holds most.
      const double most = *std::max_element(peaks.begin(), peaks.end());
      expect_peak(static_cast<std::int64_t>(most),
                  planned_step(planned_rank(config, count), Device::kCpu), config,
                  text(rule, " ", ::testing::PrintToString(axis)));
    }
}

TEST(PlannedMemory, IsWhatEachOfTwoRanksHolds) { expect_planned(2, kAxesOfTwo); }
TEST(PlannedMemory, IsWhatEachOfFourRanksHolds) { expect_planned(4, kAxesOfFour); }

}  // namespace
}  // namespace infini
