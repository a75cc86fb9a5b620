// The configurations for clusters can be read, planned for their number of GPUs, and fit.
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "trainer/config_reader.h"
#include "trainer/plan.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

const fs::path kFolder = INFINI_SOURCE_DIR "/configs/cluster";

TEST(ClusterConfigs, FitTheGpusTheyAreNamedFor) {
  std::set<std::string> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(kFolder)) {
    if (entry.path().extension() != ".yaml") continue;
    const std::string name = entry.path().stem();
    found.insert(name);
    const int ranks = std::stoi(name.substr(name.rfind('-') + 1));
    const Plan plan = make_plan(read_config_file<RunConfig>(entry.path()), ranks, 8);
    EXPECT_TRUE(plan.fits()) << name << ": " << plan.step.peak_bytes;
    ASSERT_TRUE(plan.time.has_value()) << name;
    EXPECT_GT(plan.tokens_per_second(), 0) << name;
    EXPECT_EQ(plan.rank.config.data.batch_rows, 64) << name;
  }
  std::set<std::string> expected;
  for (const char* model : {"language-model-", "passkey-1b-", "booksum-8b-"})
    for (const char* ranks : {"8", "64", "512"}) expected.insert(std::string(model) + ranks);
  EXPECT_EQ(found, expected);
}

}  // namespace
}  // namespace infini
