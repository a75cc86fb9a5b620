// A table under mpirun.
#include "tests/trainer/mpi_program.h"
#include "trainer/exit_codes.h"

namespace infini {
namespace {

class MpiReproduce : public MpiProgramTest {
 protected:
  void SetUp() override {
    MpiProgramTest::SetUp();
    small_store(path("data") / "test.h5", {70, 29, 41});
    write("configs/small/run.yaml", kTinyRun);
    write(
        "configs/small/table2.yaml",
        "title: Tiny\n"
        "corpora: [{name: bytes, title: Bytes, store: data}]\n"
        "rows:\n"
        "  - {name: linear, title: Linear, config: run.yaml, overrides: [parallel.row_leaves=4]}\n"
        "  - {name: local, title: Local, config: run.yaml,\n"
        "     overrides: [parallel.row_leaves=4, model.memory=none]}\n");
  }
  Outcome reproduce_on(int ranks, const std::string& arguments) {
    return shell(text("mpirun --oversubscribe -np ", ranks,
                      " $infini reproduce table2 --scale small ", arguments));
  }
  std::vector<double> perplexities(const std::string& output) const {
    std::vector<double> figures;
    const auto results = nlohmann::json::parse(content(output + "/results.json"));
    for (const auto& row : results.at("rows"))
      for (const auto& run : row.at("corpora").at(0).at("runs"))
        for (const char* figure : {"documents", "token_perplexity", "byte_perplexity"})
          figures.push_back(run.at("test").at(figure));
    return figures;
  }
};

TEST_F(MpiReproduce, RanksDivideRowsAndDocumentsAndStopTogether) {
  expect_exit(reproduce_on(1, "--output one"), kExitDone);
  expect_exit(reproduce_on(2, "--output two --minutes 0.0001"), kExitStopped);
  expect_exit(reproduce_on(2, "--output two"), kExitDone);
  EXPECT_LE(relative_error(perplexities("two"), perplexities("one")), 1e-12);
  for (const char* row : {"linear", "local"}) {
    const std::string run = text("/bytes/", row, "/seed-1");
    EXPECT_TRUE(held("two" + run) == held("one" + run)) << row;
    EXPECT_EQ(find_latest(path("two" + run))->ranks(), 2);
  }
}

}  // namespace
}  // namespace infini
