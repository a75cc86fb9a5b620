// The tables that are shipped: every file can be read, every run planned, and what is compared
// differs in its model alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "model/transformer.h"
#include "trainer/config_difference.h"
#include "trainer/config_reader.h"
#include "trainer/plan.h"
#include "trainer/reproduce_config.h"
#include "trainer/run_config_file.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

const fs::path kConfigs = INFINI_SOURCE_DIR "/configs";
// The rows of cpu are those of small, with overrides.
const std::string kScales[] = {"cpu", "small", "paper"};
constexpr const char* kTables[] = {"table1",  "table2", "table3",   "table4",
                                   "figure3", "longer", "rmt-sizes"};

std::vector<std::string> tables_of(const std::string& scale) {
  if (scale == "cpu") return {"table2"};
  std::vector<std::string> tables(std::begin(kTables), std::end(kTables));
  if (scale == "small") tables.push_back("ablations");
  return tables;
}

// Those of `names` that the scale has.
std::vector<std::string> tables_among(const std::string& scale, std::vector<std::string> names) {
  const std::vector<std::string> all = tables_of(scale);
  std::erase_if(names, [&](const std::string& name) { return std::ranges::count(all, name) == 0; });
  return names;
}

RunConfig run_of(const Table& table, const TableRowConfig& row) {
  return row_run(table, row, table.config.corpora[0], 1, "runs/not-written", "runs/origin");
}

double tokens_of(const RunConfig& run) {
  return static_cast<double>(run.train.steps * run.data.batch_rows * run.data.row_tokens);
}

TEST(TableConfigs, EveryFileIsATableOrARunOfOne) {
  for (const std::string& scale : kScales) {
    std::set<std::string> expected, found;
    for (const std::string& name : tables_of(scale)) {
      const Table table = read_table(kConfigs, scale, name);
      expected.insert(name + ".yaml");
      for (const TableRowConfig& row : table.config.rows)
        if (scale != "cpu") expected.insert(row.config);
    }
    for (const auto& entry : fs::directory_iterator(kConfigs / scale))
      found.insert(entry.path().filename());
    EXPECT_EQ(found, expected) << scale;
  }
}

TEST(TableConfigs, RunsCanBePlannedAndFitOneGpuAndEight) {
  for (const std::string& scale : kScales)
    for (const std::string& name : tables_among(scale, {"table2", "table3", "table4", "longer"})) {
      if (scale == "paper" && name == "table4") continue;  // needs 64, see below
      const Table table = read_table(kConfigs, scale, name);
      for (const TableRowConfig& row : table.config.rows) {
        SCOPED_TRACE(text(scale, ", ", row.name));
        RunConfig config = run_of(table, row);
        for (const int ranks : {1, 8}) {
          if (config.data.batch_rows % ranks != 0) continue;
          // What one GPU takes in more parts than each of eight has rows.
          config.train.accumulate =
              std::min(config.train.accumulate, config.data.batch_rows / ranks);
          const Plan plan = make_plan(config, ranks, 8);
          EXPECT_TRUE(plan.fits()) << ranks << " ranks: " << plan.step.peak_bytes;
          EXPECT_TRUE(plan.tokens_per_second() > 0 ||
                      config.model.architecture != Architecture::kInfini);
        }
      }
    }
}

TEST(TableConfigs, TheBookSummaryModelIsTrainedInTwoPartsThatFit) {
  const auto read = [](const char* part) {
    return read_run_config(kConfigs / "paper" / text("booksum-8b-", part, ".yaml"), {},
                           ReadFor::kPlanning);
  };
  const RunConfig first = read("pretrain"), second = read("finetune");
  EXPECT_EQ(second.init_from, first.directory);
  EXPECT_EQ(second.data.source, DataKind::kExamples);
  for (const ConfigDifference& difference : config_differences(first, second))
    EXPECT_FALSE(difference.key.starts_with("model.")) << difference.key;
  for (const RunConfig* run : {&first, &second}) {
    const Plan plan = make_plan(*run, 64, 8);
    EXPECT_EQ(plan.rank.row_tokens, run->data.row_tokens);
    EXPECT_TRUE(plan.fits()) << run->directory << ": " << plan.step.peak_bytes;
  }
}

// And in how many parts a step is taken, which changes nothing else.
TEST(TableConfigs, RowsDifferInTheirModelAlone) {
  for (const std::string& scale : kScales)
    for (const std::string& name : tables_among(scale, {"table2", "figure3"})) {
      const Table table = read_table(kConfigs, scale, name);
      const RunConfig first = run_of(table, table.config.rows[0]);
      for (const TableRowConfig& row : table.config.rows)
        for (const ConfigDifference& difference : config_differences(first, run_of(table, row)))
          EXPECT_THAT(difference.key, ::testing::AnyOf(::testing::StartsWith("model."),
                                                       ::testing::Eq("train.accumulate")))
              << scale << ", " << name << ", " << row.name;
    }
}

// Ablations and other lengths of rows stand among table2's runs: as many tokens, and what has one
// name is one run.
TEST(TableConfigs, OtherTablesAreOfTable2sRuns) {
  for (const std::string& scale : kScales) {
    const Table table2 = read_table(kConfigs, scale, "table2");
    std::map<std::string, RunConfig> runs;
    for (const TableRowConfig& row : table2.config.rows) runs[row.name] = run_of(table2, row);
    const double tokens = tokens_of(runs.begin()->second);
    for (const std::string& name : tables_of(scale)) {
      const Table table = read_table(kConfigs, scale, name);
      if (table.runs_name() != "table2") continue;
      for (const TableRowConfig& row : table.config.rows) {
        SCOPED_TRACE(text(scale, ", ", name, ", ", row.name));
        RunConfig run = run_of(table, row);
        EXPECT_NEAR(tokens_of(run), tokens, 1e-3 * tokens);
        const auto [there, is_new] = runs.emplace(row.name, run);
        run.data.store = there->second.data.store;  // its first corpus may be another
        EXPECT_TRUE(config_differences(there->second, run).empty());
      }
    }
  }
}

TEST(TableConfigs, RowsBeginWithTheSameModel) {
  for (const auto& [scale, name] : {std::pair{"small", "table3"},
                                    {"small", "table4"},
                                    {"paper", "table3"},
                                    {"paper", "table4"}}) {
    const Table table = read_table(kConfigs, scale, name);
    std::map<std::string, RunConfig> runs;
    for (const TableRowConfig& row : table.config.rows) {
      const RunConfig run = runs[row.name] = run_of(table, row);
      if (row.from.empty()) continue;
      EXPECT_EQ(run.init_from, "runs/origin");
      if (run.data.source == DataKind::kPasskey)
        EXPECT_EQ(run.data.passkey.tokenizer, table.config.corpora[0].store + "/tokenizer.model");
      else
        EXPECT_EQ(run.data.store, table.config.corpora[0].examples);
      for (const ConfigDifference& difference : config_differences(runs.at(row.from), run))
        EXPECT_THAT(difference.key, ::testing::Not(::testing::StartsWith("model.")))
            << scale << ", " << name << ", " << row.name;
    }
  }
}

TEST(TableConfigs, RowsOfOneScaleHaveAsManyParameters) {
  for (const char* scale : {"cpu", "small"}) {
    const Table table = read_table(kConfigs, scale, "table2");
    const auto parameters = [&](const TableRowConfig& row) {
      return static_cast<double>(parameter_count(row_model(table, row)));
    };
    const double first = parameters(table.config.rows[0]);
    for (const TableRowConfig& row : table.config.rows)
      EXPECT_NEAR(parameters(row), first, 0.01 * first) << scale << ", " << row.name;
  }
}

TEST(ConfigDifference, NamesKeysAndBothValues) {
  const auto read = [](const std::string& yaml) {
    return read_config_text<RunConfig>(yaml, "a test");
  };
  const RunConfig left = read("optim: {groups: [{pattern: a}]}\nevaluate: {every: 3}");
  const RunConfig right = read("optim: {groups: [{pattern: b}, {pattern: c}]}");
  EXPECT_TRUE(config_differences(left, left).empty());
  std::string said;
  for (const auto& [key, mine, other] : config_differences(left, right))
    said += text(key, " ", mine, " ", other, "\n");
  EXPECT_THAT(said, ::testing::HasSubstr("optim.groups[0].pattern a b\n"));
  EXPECT_THAT(said, ::testing::HasSubstr("optim.groups[1].pattern nothing c\n"));
  EXPECT_THAT(said, ::testing::HasSubstr("evaluate.every 3 0\n"));
}

}  // namespace
}  // namespace infini
