// infini bench under mpirun.
#include <algorithm>
#include <sstream>

#include "tests/trainer/mpi_program.h"

namespace infini {
namespace {

class MpiBench : public MpiProgramTest {
 protected:
  // The line about the step, which there must be once.
  nlohmann::json step(const std::string& arguments) {
    const Outcome outcome = shell(
        "mpirun --oversubscribe -np 2 $infini bench tiny.yaml --square 16 --steps 2 " + arguments);
    expect_exit(outcome, 0);
    nlohmann::json found;
    std::istringstream lines(outcome.said);
    for (std::string text; std::getline(lines, text);) {
      if (!text.starts_with("{")) continue;
      const nlohmann::json line = nlohmann::json::parse(text);
      if (line.at("what") != "training step") continue;
      EXPECT_TRUE(found.is_null()) << outcome.said;
      found = line;
    }
    return found;
  }
};

TEST_F(MpiBench, SaysOnceWhatTheStepOfAllRanksTakes) {
  for (const char* axis :
       {"parallel.segment=2", "parallel.shard=parameters train.recompute_blocks=true"}) {
    SCOPED_TRACE(axis);
    const nlohmann::json line = step(axis);
    ASSERT_FALSE(line.is_null());
    EXPECT_EQ(line["ranks"], 2);
    EXPECT_GT(line["loss"], 0);
    EXPECT_EQ(line["skipped_steps"], 0);
    EXPECT_DOUBLE_EQ(line["tokens_per_second"].get<double>() * line["seconds"].get<double>(),
                     4 * 16);
    const auto peaks = line["peak_bytes_of_ranks"].get<std::vector<std::int64_t>>();
    ASSERT_EQ(peaks.size(), 2u);
    EXPECT_GT(std::ranges::min(peaks), 0);
    EXPECT_EQ(line["peak_bytes"], std::ranges::max(peaks));
  }
}

}  // namespace
}  // namespace infini
