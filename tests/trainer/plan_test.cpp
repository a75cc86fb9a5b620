// What a plan says of many GPUs, and what it refuses.
#include "trainer/plan.h"

#include <nlohmann/json.hpp>

#include "tests/trainer/program.h"
#include "trainer/config_reader.h"
#include "trainer/config_writer.h"

namespace infini {
namespace {

using ::testing::HasSubstr;

Plan planned(const std::string& file, const std::vector<std::string>& overrides, int ranks) {
  return make_plan(
      read_config_file<RunConfig>(INFINI_SOURCE_DIR "/experiments/performance/" + file, overrides),
      ranks, 8);
}
Plan paper(const std::vector<std::string>& overrides, int ranks) {
  return planned("paper.yaml", overrides, ranks);
}

TEST(Plan, RepeatsToTheByte) {
  const std::vector<std::string> rows{"data.batch_rows=64"};
  EXPECT_EQ(plan_json(paper(rows, 16)), plan_json(paper(rows, 16)));
}

TEST(Plan, TakesTheFiguresOfTheFileAsItsDefaults) {
  CardFigures built_in;
  CardFigures file =
      read_config_file<CardFigures>(INFINI_SOURCE_DIR "/experiments/performance/h200.yaml");
  EXPECT_EQ(config_yaml(built_in), config_yaml(file));
}

TEST(Plan, DividesWhatTheKeySays) {
  const auto peak = [](const char* shard) {
    return planned(
               "8b.yaml",
               {"data.batch_rows=8", "train.recompute_blocks=true", text("parallel.shard=", shard)},
               8)
        .step.peak;
  };
  const MemoryUse none = peak("none"), optimizer = peak("optimizer");
  const MemoryUse gradients = peak("gradients"), parameters = peak("parameters");
  EXPECT_EQ(none.of(MemoryKind::kMasters), optimizer.of(MemoryKind::kMasters));
  EXPECT_LT(optimizer.of(MemoryKind::kOptimizer), none.of(MemoryKind::kOptimizer) / 4);
  EXPECT_LT(gradients.of(MemoryKind::kGradients), none.of(MemoryKind::kGradients) / 4);
  EXPECT_EQ(gradients.of(MemoryKind::kMasters), none.of(MemoryKind::kMasters));
  EXPECT_EQ(gradients.of(MemoryKind::kValues), none.of(MemoryKind::kValues));
  EXPECT_LT(parameters.of(MemoryKind::kMasters), none.of(MemoryKind::kMasters) / 6);
  EXPECT_LT(parameters.of(MemoryKind::kValues), none.of(MemoryKind::kValues) / 6);
  EXPECT_NEAR(static_cast<double>(parameters.of(MemoryKind::kActivations)),
              static_cast<double>(none.of(MemoryKind::kActivations)),
              0.05 * static_cast<double>(none.of(MemoryKind::kActivations)));
}

TEST(Plan, SendsAsMuchForALongRowAsForAShortOne) {
  const auto segment_traffic = [](const char* row) {
    const Plan plan = paper({text("data.row_tokens=", row), "data.batch_rows=1",
                             "parallel.segment=2", "train.recompute_blocks=true"},
                            2);
    for (const Exchange& each : plan.traffic)
      if (each.axis == "segment") return each.nvlink_bytes;
    return 0.0;
  };
  EXPECT_GT(segment_traffic("65536"), 0);
  EXPECT_EQ(segment_traffic("65536"), segment_traffic("1048576"));
}

TEST(Plan, GivesATensorGroupAShareOfEachBlock) {
  const Plan one = planned("8b.yaml", {}, 1), four = planned("8b.yaml", {"parallel.tensor=4"}, 4);
  EXPECT_LT(four.rank.parameters, one.rank.parameters / 4 + 1000000);
  EXPECT_LT(four.step.peak.of(MemoryKind::kActivations),
            one.step.peak.of(MemoryKind::kActivations) / 2);
  EXPECT_LT(four.time->products, one.time->products / 3.5);
  // Two sums a block forward and two backward, those of the first sweep, embedding and loss.
  ASSERT_EQ(four.traffic[0].what, "activations, summed");
  EXPECT_GE(four.traffic[0].calls, 2 * 4 * 32);
  // All else that is exchanged is small beside them.
  for (std::size_t i = 1; i < four.traffic.size(); ++i)
    EXPECT_LT(four.traffic[i].nvlink_bytes, 0.02 * four.traffic[0].nvlink_bytes);
}

TEST(Plan, CrossesTheNetworkOnlyBetweenNodes) {
  for (const int ranks : {8, 64}) {
    const Plan plan = paper({"data.batch_rows=64"}, ranks);
    ASSERT_EQ(plan.traffic.size(), 1u);
    const double gradients = 4.0 * static_cast<double>(plan.rank.parameters);
    const double nodes = ranks / 8;
    EXPECT_DOUBLE_EQ(plan.traffic[0].nvlink_bytes, 2 * gradients * 7 / 8);
    EXPECT_DOUBLE_EQ(plan.traffic[0].network_bytes, 2 * gradients * (nodes - 1) / nodes / 8);
  }
  // Groups whose ranks are a node apart send everything over the network.
  const GroupPlace apart = place_of(4, 8, 8);
  EXPECT_EQ(apart.per_node, 1);
  EXPECT_EQ(apart.nodes, 4);
}

TEST(Plan, LosesLittleWhereTheExchangeHidesBehindTheBackwardPass) {
  const double one = paper({"data.batch_rows=1"}, 1).tokens_per_second();
  const double two = paper({"data.batch_rows=2"}, 2).tokens_per_second();
  EXPECT_LT(two, 2 * one);
  EXPECT_GT(two, 2 * 0.9 * one);
}

void expect_refused(const std::vector<std::string>& overrides, int ranks,
                    const std::string& message) {
  try {
    paper(overrides, ranks);
    ADD_FAILURE() << "no refusal: " << message;
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr(message));
  }
}

TEST(Plan, RefusesWhatTrainingRefuses) {
  expect_refused({}, 3, "data.batch_rows = 4 is not divisible by parallel.data = 3");
  expect_refused({"parallel.tensor=3"}, 3,
                 "model.heads = 8 is not divisible by parallel.tensor = 3");
  expect_refused({"parallel.tensor=3"}, 4, "is 3, which does not divide the 4 ranks");
  expect_refused({"parallel.segment=2", "train.schedule=streaming"}, 2,
                 "train.schedule = streaming would take one after the other");
  expect_refused({"parallel.segment=32"}, 32, "does not divide into parallel.segment = 32 parts");
  expect_refused({"data.batch_rows=12"}, 12, "12 ranks do not fill nodes of --gpus-per-node 8");
  expect_refused({"parallel.shard=parameters"}, 4, "needs train.recompute_blocks = true");
  expect_refused({"parallel.row_leaves=4", "parallel.shard=gradients"}, 2,
                 "parallel.row_leaves = 4 must be 0 or parallel.data = 2");
  expect_refused({"model.vocabulary=0"}, 1, "data.store = random holds no train.h5");
}

class PlanCommand : public ProgramTest {};

TEST_F(PlanCommand, PrintsATableOrJson) {
  const std::string config = INFINI_SOURCE_DIR "/experiments/performance/paper.yaml";
  const Outcome table = infini("plan " + config + " --ranks 4");
  EXPECT_EQ(table.code, 0) << table.said;
  EXPECT_THAT(table.said, HasSubstr("4 GPUs on 1 node"));
  EXPECT_THAT(table.said, HasSubstr("gradients, summed"));
  EXPECT_THAT(table.said, HasSubstr(": fits"));
  const auto json =
      nlohmann::json::parse(infini("plan " + config + " --json data.batch_rows=8 --ranks 8").said);
  EXPECT_EQ(json["ranks"], 8);
  EXPECT_EQ(json["fits"], true);
  const auto& memory = json["memory_bytes"];
  std::int64_t sum = memory["rounding"];
  for (const char* kind : {"values", "gradients", "masters", "optimizer", "activations", "borders",
                           "logits", "exchange", "workspace"})
    sum += memory[kind].get<std::int64_t>();
  EXPECT_EQ(sum, memory["tensors"]);
}

TEST_F(PlanCommand, SaysWhatItHasNoFiguresFor) {
  const Outcome quickstart = infini("plan " INFINI_SOURCE_DIR "/configs/quickstart.yaml");
  EXPECT_EQ(quickstart.code, 0) << quickstart.said;
  EXPECT_THAT(quickstart.said, HasSubstr("no time: the figures of the card are of"));
  write("card.yaml", "product_teraflop: 100\n");
  expect_refused("plan " INFINI_SOURCE_DIR
                 "/experiments/performance/paper.yaml --figures card.yaml",
                 2, "unknown key product_teraflop; did you mean product_teraflops?");
}

}  // namespace
}  // namespace infini
