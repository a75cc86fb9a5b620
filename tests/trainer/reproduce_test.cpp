// A whole table by one command: on a tiny corpus, interrupted and not, refused where it must be.
#include <algorithm>
#include <set>

#include "tests/trainer/program.h"
#include "tests/trainer/tiny_run.h"
#include "tests/trainer/xml_check.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kTinyTable =
    "title: \"Tiny: linear & local\"\n"
    "corpora:\n"
    "  - {name: bytes, title: Bytes <all>, store: data}\n"
    "rows:\n"
    "  - {name: linear, title: Infini linear, config: run.yaml, seeds: 2,\n"
    "     quoted: [{of: memory, value: 1.6M}, {of: compression, value: 114x}, {of: bytes, value: "
    "9.65}]}\n"
    "  - {name: local, title: Local, config: run.yaml, overrides: [model.memory=none], seeds: 2}\n"
    "figures: [segments, gates]\n";

class Reproduce : public ProgramTest {
 protected:
  void SetUp() override {
    write("configs/small/run.yaml", kTinyRun);
    write("configs/small/table2.yaml", kTinyTable);
    tiny_store(path("data"), kTinyLengths);
    small_store(path("data") / "test.h5", {70, 29});
  }
  // The rows' run with another value.
  void write_run_with(const std::string& from, const std::string& to) {
    std::string run = kTinyRun;
    write("configs/small/run.yaml", run.replace(run.find(from), from.size(), to));
  }
  nlohmann::json rows_of(const std::string& output) const {
    return nlohmann::json::parse(content(output + "/results.json")).at("rows");
  }
  fs::file_time_type written(const std::string& file) const {
    return fs::last_write_time(path(file));
  }
};

const std::vector<std::string> kRuns = {"bytes/linear/seed-1", "bytes/linear/seed-2",
                                        "bytes/local/seed-1", "bytes/local/seed-2"};

TEST_F(Reproduce, TrainsMeasuresAndWritesItDown) {
  expect_done("reproduce table2 --scale small");
  const std::string output = "runs/reproduce/table2-small";
  const nlohmann::json rows = rows_of(output);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].at("memory_numbers"), 2 * 2 * 8 * 9);
  EXPECT_EQ(rows[1].at("memory_numbers"), 0);

  // A run of the table is the run of its YAML: the same weights, the same figures.
  expect_done("train configs/small/run.yaml seed=2 directory=alone");
  const std::string run = output + "/" + kRuns[1];
  EXPECT_TRUE(shard("alone", 6) == shard(run, 6));
  const nlohmann::json linear = rows[0].at("corpora").at(0);
  for (const auto& [how, flag] : {std::pair{"test", ""}, {"memory_off", "--memory-off"}}) {
    expect_done(text("evaluate alone --output alone.json ", flag));
    EXPECT_EQ(linear.at("runs").at(1).at(how), nlohmann::json::parse(content("alone.json")));
  }
  const nlohmann::json spread = linear.at("test").at("token_perplexity");
  const double first = linear.at("runs").at(0).at("test").at("token_perplexity"),
               second = linear.at("runs").at(1).at("test").at("token_perplexity");
  EXPECT_NE(first, second);
  EXPECT_DOUBLE_EQ(spread.at("mean"), (first + second) / 2);
  EXPECT_NEAR(spread.at("deviation"), std::abs(first - second) / std::sqrt(2.0), 1e-9);
  EXPECT_FALSE(rows[1].at("corpora").at(0).contains("memory_off"));

  const std::string table = content(output + "/table.md");
  EXPECT_THAT(table, HasSubstr("| model | memory | compression | memory, quoted | compression, "
                               "quoted | Bytes <all> | Bytes <all>, quoted |"));
  EXPECT_THAT(table, HasSubstr("| 1.6M | 114x |"));
  EXPECT_THAT(table, HasSubstr("| 9.65 |"));
  for (const char* figure : {"segments-bytes.svg", "gates-bytes-linear.svg"}) {
    EXPECT_EQ(xml_fault(content(output + "/" + figure)), "") << figure;
    EXPECT_THAT(table, HasSubstr(figure));
  }
  EXPECT_THAT(content(output + "/segments-bytes.svg"), HasSubstr("Infini linear, memory off"));
  EXPECT_FALSE(fs::exists(path(output + "/gates-bytes-local.svg")));
}

TEST_F(Reproduce, InPartsIsTheSameAsAtOnce) {
  expect_done("reproduce table2 --scale small --output whole");
  int calls = 1, code = 75;
  for (; calls < 60 && code == 75; ++calls)
    code = infini("reproduce table2 --scale small --output parts --minutes 0.0001").code;
  EXPECT_EQ(code, 0);
  EXPECT_GE(calls, 6);  // at least one for each run
  for (const char* file : {"results.json", "segments-bytes.svg", "gates-bytes-linear.svg"})
    EXPECT_EQ(content(text("parts/", file)), content(text("whole/", file))) << file;
  for (const std::string& run : kRuns)
    EXPECT_TRUE(shard("parts/" + run, 6) == shard("whole/" + run, 6)) << run;
}

TEST_F(Reproduce, ASignalSavesAndStopsTheTable) {
  write_run_with("steps: 6", "steps: 4000");
  const std::string run = "out/bytes/linear/seed-1";
  EXPECT_EQ(
      infini_until_first_step("reproduce table2 --scale small --output out", run, "kill -TERM $job")
          .code,
      75);
  const auto saved = list_checkpoints(path(run));
  ASSERT_EQ(saved.size(), 1U);
  EXPECT_LT(saved[0].step, 4000);
  EXPECT_FALSE(fs::exists(path("out/bytes/linear/seed-2")));
}

TEST_F(Reproduce, PartsOfATableComeTogether) {
  const std::string reproduce = "reproduce table2 --scale small --seeds 1 --output out ";
  expect_done(reproduce + "--rows local");
  EXPECT_FALSE(rows_of("out").at(0).contains("corpora"));
  const auto before = written("out/bytes/local/seed-1/result.json");
  expect_done(reproduce + "--rows linear --corpora bytes");
  for (const nlohmann::json& row : rows_of("out"))
    EXPECT_EQ(row.at("corpora").at(0).at("runs").size(), 1U) << row;
  EXPECT_EQ(written("out/bytes/local/seed-1/result.json"), before);

  // Fewer seeds than there are do not hide any.
  expect_done("reproduce table2 --scale small --output out");
  expect_done(reproduce);
  EXPECT_EQ(rows_of("out").at(1).at("corpora").at(0).at("runs").size(), 2U);

  // Nothing is left to do: no run is touched.
  const auto measured = written("out/bytes/linear/seed-1/result.json");
  const std::string first = content("out/results.json");
  const Outcome again = infini(reproduce);
  EXPECT_EQ(again.code, 0) << again.said;
  EXPECT_THAT(again.said, Not(HasSubstr("seed-1: ")));
  EXPECT_EQ(content("out/results.json"), first);
  EXPECT_EQ(written("out/bytes/linear/seed-1/result.json"), measured);
}

TEST_F(Reproduce, TablesShareRuns) {
  expect_done("reproduce table2 --scale small --rows linear");
  const std::string runs = "runs/reproduce/table2-small/", own = "runs/reproduce/figure3-small/";
  const std::string first = content(runs + "results.json");
  write("configs/small/figure3.yaml",
        "title: Gates\n"
        "runs_of: table2\n"
        "corpora: [{name: bytes, store: data}]\n"
        "rows: [{name: linear, config: run.yaml}]\n"
        "figures: [gates]\n");
  const Outcome figure = infini("reproduce figure3 --scale small");
  EXPECT_EQ(figure.code, 0) << figure.said;
  EXPECT_THAT(figure.said, Not(HasSubstr("training")));
  EXPECT_EQ(content(runs + "results.json"), first);
  EXPECT_FALSE(fs::exists(path(own + "bytes")));
  EXPECT_THAT(content(own + "gates-bytes-linear.svg"),
              HasSubstr("sigmoid(gate) of linear, bytes, seed 1"));
}

TEST_F(Reproduce, RefusesWhatItCannotDo) {
  const auto refused = [&](const std::string& arguments, const std::string& message) {
    expect_refused("reproduce " + arguments, 2, message);
  };
  refused("table2", "--scale is required");
  refused("table2 --scale large", "large");
  refused("table3 --scale small",
          "there is no table table3 at scale small: configs/small/table3.yaml does not exist; "
          "tables there: table2");
  refused("table2 --scale small --rows linaer",
          "--rows: linaer is not in the table; did you mean linear?");
  refused("table2 --scale small --corpora x", "--corpora: x is not in the table; known are bytes");
  refused("table2 --scale small --seeds 0", "--seeds");

  const auto table_refused = [&](const std::string& from, const std::string& to,
                                 const std::string& message) {
    std::string table = kTinyTable;
    table.replace(table.find(from), from.size(), to);
    write("configs/small/table2.yaml", table);
    refused("table2 --scale small", message);
    write("configs/small/table2.yaml", kTinyTable);
  };
  table_refused("name: local", "name: linear", "rows: two are named linear");
  table_refused("name: local", "name: a/b", "rows: name \"a/b\" must be letters, digits, - and _");
  table_refused("of: bytes", "of: books",
                "rows: linear quotes books; expected memory, compression, the name of a corpus");
  table_refused("seeds: 2", "corpora: [books]",
                "rows: linear is for corpus books; known are bytes");
  table_refused("run.yaml", "none.yaml", "configs/small/none.yaml does not exist");
  table_refused("store: data", "store: nowhere",
                "nowhere/train.h5 does not exist; `infini prepare`");
  table_refused("model.memory=none", "model.memry=none", "unknown key model.memry");
  table_refused("model.memory=none", "evaluate.document_tokens=9",
                "run.yaml: evaluate.document_tokens is 9, but tables are of whole documents");
  table_refused("model.memory=none", "data.source=passkey", "run.yaml: data.source must be store");
  table_refused("figures: [segments", "figures: [gate", "expected segments or gates");
  EXPECT_FALSE(fs::exists(path("runs")));
}

TEST_F(Reproduce, NeverMixesRunsOfTwoConfigurations) {
  const std::string reproduce = "reproduce table2 --scale small --seeds 1 --output out --rows ";
  expect_done(reproduce + "linear");
  EXPECT_EQ(infini(reproduce + "local --minutes 0.0001").code, 75);
  write_run_with("learning_rate: 0.05", "learning_rate: 0.02");
  const std::string result = content("out/bytes/linear/seed-1/result.json");
  expect_refused(reproduce + "linear", 2,
                 "out/bytes/linear/seed-1/result.json is of a run with optim.learning_rate = 0.05, "
                 "the table now says 0.02; give another --output");
  expect_refused(reproduce + "local", 2,
                 "out/bytes/local/seed-1/config.yaml is of a run with optim.learning_rate = 0.05");
  EXPECT_EQ(content("out/bytes/linear/seed-1/result.json"), result);
}

TEST_F(Reproduce, NeverMixesResultsOfTwoCorpora) {
  const std::string reproduce = "reproduce table2 --scale small --seeds 1 --output out --rows ";
  expect_done(reproduce + "linear");
  const std::string result = content("out/bytes/linear/seed-1/result.json");
  small_store(path("data/test.h5"), {44, 23, 31});
  expect_refused(reproduce + "linear", 2,
                 "out/bytes/linear/seed-1/result.json is of other data than data holds now");
  EXPECT_EQ(content("out/bytes/linear/seed-1/result.json"), result);
  fs::remove(path("data/test.h5"));  // nothing more is known of it
  expect_done(reproduce + "linear");
}

TEST_F(Reproduce, TakesNoResultThatWasChanged) {
  const std::string reproduce =
                        "reproduce table2 --scale small --seeds 1 --output out --rows linear",
                    file = "out/bytes/linear/seed-1/result.json";
  expect_done(reproduce);
  std::string changed = content(file);
  changed.replace(changed.find("\"step\": 6"), 9, "\"step\": 7");
  for (const std::string& other : {changed, std::string("{}"), std::string("[]")}) {
    write(file, other);
    expect_refused(reproduce, 3, file + ": was changed since it was written");
  }
  fs::remove(path(file));
  expect_done(reproduce);
}

TEST_F(Reproduce, Table1CountsWhatTheConfigurationsOfThePaperRemember) {
  expect_done("reproduce table1 --scale paper --output out --configs '" INFINI_SOURCE_DIR
              "/configs'");
  std::map<std::string, nlohmann::json> rows;
  for (const nlohmann::json& row : rows_of("out")) rows[row.at("name")] = row;
  EXPECT_EQ(rows.at("transformer-xl").at("memory_numbers"), 50'331'648);
  EXPECT_EQ(rows.at("infini-linear").at("memory_numbers"), 1'585'152);
  EXPECT_EQ(rows.at("infini-delta").at("memory_numbers"), 1'585'152);
  EXPECT_EQ(rows.at("local").at("memory_numbers"), 0);
  EXPECT_EQ(rows.at("memorizing").at("memory_numbers"), 183'451'648);
  EXPECT_EQ(rows.at("rmt").at("memory_numbers"), 2'457'600);
  const auto compression = [&](const char* row) {
    return rows.at(row).at("compression").get<double>();
  };
  EXPECT_EQ(compression("memorizing"), 1);
  EXPECT_NEAR(compression("transformer-xl"), 3.645, 0.001);
  EXPECT_NEAR(compression("rmt"), 74.65, 0.01);
  EXPECT_NEAR(compression("infini-linear"), 115.73, 0.01);
  const std::string table = content("out/table.md");
  EXPECT_THAT(table, HasSubstr("| Memorizing Transformer | 183.45M |"));
  EXPECT_THAT(table, HasSubstr("| Transformer-XL | 50.33M |"));
  EXPECT_THAT(table, HasSubstr("| Infini linear | 1.585M |"));
  EXPECT_FALSE(fs::exists(path("out/timings.json")));
}

}  // namespace
}  // namespace infini
