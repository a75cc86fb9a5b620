// Plans of one and of two H200s against what `infini bench` measured (experiments/performance and
// experiments/scaling).
#include <gtest/gtest.h>

#include "trainer/config_reader.h"
#include "trainer/plan.h"

namespace infini {
namespace {

struct Measured {
  const char* file;
  std::vector<std::string> overrides;
  double tokens_per_second;
  double peak_gibibytes;  // 0: not recorded
  int ranks = 1;
};

std::vector<std::string> streamed(const char* row_tokens) {
  return {"train.schedule=streaming", "train.segments_per_tape=4", "data.batch_rows=1",
          text("data.row_tokens=", row_tokens)};
}

// One row of 1,048,576 tokens.
std::vector<std::string> recomputed(std::vector<std::string> more) {
  more.insert(more.end(),
              {"data.batch_rows=1", "data.row_tokens=1048576", "train.recompute_blocks=true"});
  return more;
}

const Measured kMeasured[] = {
    {"paper.yaml", {}, 397000, 62.9},
    {"paper.yaml", {"data.batch_rows=1"}, 395000, 19.3},
    {"paper.yaml", {"model.memory=none"}, 431158, 0},
    {"paper.yaml", {"model.memory=delta"}, 383000, 0},
    {"paper.yaml", {"train.schedule=streaming"}, 294000, 8.3},
    {"paper.yaml", streamed("32768"), 303000, 7.89},
    {"paper.yaml", streamed("131072"), 293400, 7.96},
    {"paper.yaml", streamed("524288"), 291100, 8.25},
    {"paper.yaml", streamed("1048576"), 290400, 8.63},
    {"1.2b.yaml", {}, 61046, 0},
    {"8b.yaml", {}, 10886, 89.8},
    {"8b.yaml", {"data.row_tokens=65536"}, 10063, 90.0},
    {"8b.yaml", {"data.row_tokens=262144"}, 8738, 91.2},
    {"8b.yaml", {"data.row_tokens=65536", "train.recompute_blocks=true"}, 8086, 72.31},
    {"paper.yaml", {"data.batch_rows=1", "data.row_tokens=65536"}, 397100, 33.82},
    {"paper.yaml", recomputed({}), 313456, 82.03},
    {"paper.yaml", {"data.batch_rows=2"}, 746400, 19.27, 2},
    {"paper.yaml",
     {"data.batch_rows=1", "data.row_tokens=65536", "parallel.segment=2"},
     741000,
     19.27,
     2},
    {"paper.yaml", recomputed({"parallel.segment=2"}), 606161, 42.88, 2},
    {"1.2b.yaml", {"data.batch_rows=4"}, 113900, 37.56, 2},
    {"8b.yaml",
     {"data.batch_rows=2", "data.row_tokens=65536", "train.recompute_blocks=true",
      "parallel.shard=parameters"},
     13692,
     39.90,
     2},
};

TEST(Plan, IsNearWhatCardsMeasured) {
  for (const Measured& row : kMeasured) {
    const Plan plan = make_plan(
        read_config_file<RunConfig>(
            std::string(INFINI_SOURCE_DIR "/experiments/performance/") + row.file, row.overrides),
        row.ranks, 8);
    const std::string name = text(row.file, " ", row.tokens_per_second, " on ", row.ranks);
    EXPECT_NEAR(row.tokens_per_second / plan.tokens_per_second(), 1, 0.15) << name;
    if (row.peak_gibibytes > 0) {
      const double planned = static_cast<double>(plan.step.peak_bytes) / (1 << 30);
      EXPECT_NEAR(planned / row.peak_gibibytes, 1, 0.02) << name;
    }
    EXPECT_TRUE(plan.fits()) << name;
  }
}

}  // namespace
}  // namespace infini
