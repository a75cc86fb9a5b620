// A rank that is killed or stopped takes the run down with it, soon and in words.
#include "tests/trainer/mpi_program.h"
#include "trainer/exit_codes.h"

namespace infini {
namespace {

class MpiFailure : public MpiProgramTest {
 protected:
  struct End {
    int code = 0;
    double seconds = 0;  // from the signal until mpirun has returned
    int left = 0;        // processes of the program afterwards
    std::string said;
  };
  // Starts an endless run on 4 ranks, sends one of them a signal `delay` seconds after the first
  // step, and waits for the end.
  End train_until(const std::string& run, int rank, const std::string& signal, double delay) {
    // Processes of the program in this folder, by what mpirun has set for them.
    const auto ranks = [](const std::string& which) {
      return "for p in $(pgrep -f train.steps=1000000000); do "
             "[ \"$(readlink /proc/$p/cwd)\" = \"$PWD\" ] && tr '\\0' '\\n' </proc/$p/environ | "
             "grep -q '^OMPI_COMM_WORLD_RANK=" +
             which + "' && echo $p; done";
    };
    const Outcome outcome = shell(text(
        "timeout 60 mpirun --oversubscribe -np 4 $infini train tiny.yaml train.steps=1000000000 "
        "checkpoint.every=5 parallel.silence_seconds=2 directory=",
        run, " & job=$!; for i in $(seq 3000); do [ -s ", run,
        "/metrics.jsonl ] && break; sleep 0.01; done; sleep ", delay, "; kill -", signal, " $(",
        ranks(text(rank)), "); begin=$(date +%s%N); wait $job; code=$?; ",
        "echo; echo END $code $(( ($(date +%s%N) - begin) / 1000000 )) $(", ranks(""),
        " | wc -l)"));
    End end{.said = outcome.said};
    const std::size_t at = outcome.said.rfind("END ");
    long long milliseconds = 0;
    EXPECT_NE(at, std::string::npos) << outcome.said;
    if (at != std::string::npos)
      std::sscanf(outcome.said.c_str() + at, "END %d %lld %d", &end.code, &milliseconds, &end.left);
    end.seconds = static_cast<double>(milliseconds) / 1000;
    return end;
  }
  // Ten times, at moments and on ranks that differ. mpirun itself may notice a death first, which
  // shows in the exit code and in whose words name the rank.
  void expect_all_end(const std::string& signal, const std::vector<int>& codes) {
    for (int i = 0; i < 10; ++i) {
      const RandomKey key{.seed = 5, .site = static_cast<std::uint32_t>(i)};
      const int rank = i % 4;
      const std::string run = text("run-", signal, "-", i);
      const End end = train_until(run, rank, signal, 0.8 * key.uniform(0));
      SCOPED_TRACE(text(run, ", rank ", rank, ": ", end.said));
      EXPECT_LE(end.seconds, 10);
      EXPECT_EQ(end.left, 0);
      EXPECT_THAT(codes, ::testing::Contains(end.code));
      EXPECT_THAT(end.said, ::testing::HasSubstr(text("rank ", rank, " ")));
      EXPECT_LE(times(end.said, "infini: error: "), 1);
      const std::optional<Checkpoint> latest = find_latest(path(run));
      EXPECT_TRUE(!latest || held(run).size() > 10);
    }
  }
};

TEST_F(MpiFailure, OfARankThatIsKilledEndsTheRun) { expect_all_end("KILL", {kExitDevice, 137}); }

TEST_F(MpiFailure, OfARankThatIsStoppedEndsTheRun) { expect_all_end("STOP", {kExitDevice}); }

}  // namespace
}  // namespace infini
