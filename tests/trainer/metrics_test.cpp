#include "trainer/metrics.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <limits>

#include "data/durable_file.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

class MetricsLogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/infini-metrics-XXXXXX";
    folder_ = mkdtemp(name);
    file_ = folder_ / "run" / "metrics.jsonl";
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write_steps(std::int64_t from, std::int64_t to) {
    MetricsLog log(file_, from - 1);
    for (std::int64_t step = from; step <= to; ++step)
      log.append(step, {{"loss", 1.0 / static_cast<double>(step)}});
  }

  fs::path folder_, file_;
};

TEST(Metrics, LinesAreJsonWithExactNumbers) {
  EXPECT_EQ(
      metrics_line(12, {{"loss", 0.1 + 0.2}, {"tokens", 4e9}, {"a\"b", -1}}),
      "{\"step\": 12, \"loss\": 0.30000000000000004, \"tokens\": 4000000000, \"a\\\"b\": -1}\n");
  EXPECT_EQ(metrics_line(1, {{"x", std::nan("")}, {"y", std::numeric_limits<double>::infinity()}}),
            "{\"step\": 1, \"x\": null, \"y\": null}\n");
}

TEST_F(MetricsLogTest, ResumedLogEqualsTheUnbrokenOne) {
  write_steps(1, 6);
  const std::string unbroken = read_file(file_);
  fs::remove(file_);
  write_steps(1, 5);
  std::ofstream(file_, std::ios::app) << "{\"step\": 6, \"lo";  // killed while writing
  write_steps(4, 6);                                            // resumed at step 3
  EXPECT_EQ(read_file(file_), unbroken);
}

TEST_F(MetricsLogTest, KeepsWhatSomebodyElseWroteAmongItsLines) {
  write_steps(1, 2);
  std::ofstream(file_, std::ios::app) << "a note\n{\"loss\": 3}\n";
  const std::string noted = read_file(file_);
  write_steps(3, 5);
  write_steps(4, 4);  // resumed at step 3
  EXPECT_EQ(read_file(file_),
            noted + metrics_line(3, {{"loss", 1.0 / 3}}) + metrics_line(4, {{"loss", 0.25}}));
}

TEST_F(MetricsLogTest, ANewRunStartsEmpty) {
  write_steps(1, 3);
  { MetricsLog log(file_, 0); }
  EXPECT_EQ(read_file(file_), "");
}

TEST_F(MetricsLogTest, AFullDiskCostsLinesNotTheRun) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{50, 50};
    setrlimit(RLIMIT_FSIZE, &limit);
    write_steps(1, 10);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(read_file(file_), metrics_line(1, {{"loss", 1}}) + metrics_line(2, {{"loss", 0.5}}));
}

}  // namespace
}  // namespace infini
