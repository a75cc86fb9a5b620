// The memory that a plan predicts for a rank among several against what that rank holds.
#include "distributed/layout.h"
#include "tests/mpi/ranks.h"
#include "tests/trainer/plan_peaks.h"
#include "tests/trainer/tiny_run.h"

namespace infini {
namespace {

TEST(PlannedMemory, IsWhatEachOfTwoRanksHolds) {
  Communicator two;
  if (!first_ranks(2, two)) return;
  TempFolder folder;
  const std::shared_ptr<const TokenStore> store = tiny_store(folder / "data", {410, 230, 120, 350});
  for (const char* rule : {"linear", "delta"})
    for (const char* axis : {"parallel.data=2", "parallel.segment=2", "parallel.shard=optimizer",
                             "parallel.tensor=2"}) {
      RunConfig config = tiny_config({"model.d_model=64", "model.feed_forward=128",
                                      "data.row_tokens=64", text("model.memory=", rule), axis});
      config.model.vocabulary = (store->vocabulary() + 1) / 2 * 2;
      auto source = make_source(config.data, config.model.segment_tokens,
                                static_cast<std::uint64_t>(config.seed), config.train.steps, store);
      const std::int64_t before = memory_statistics(Device::kCpu).in_use_bytes;
      reset_peak(Device::kCpu);
      std::vector<double> peaks;
      {
        Training training(config, std::move(source), store->tokenizer().serialise(),
                          make_layout(two, config.parallel));
        for (int i = 0; i < 2; ++i) training.step();
        peaks =
            two.gather(static_cast<double>(memory_statistics(Device::kCpu).peak_bytes - before));
      }
      // The plan is of the rank that holds most.
      const double most = *std::max_element(peaks.begin(), peaks.end());
      expect_peak(static_cast<std::int64_t>(most),
                  planned_step(planned_rank(config, 2), Device::kCpu), config,
                  text(rule, " ", axis));
    }
}

}  // namespace
}  // namespace infini
