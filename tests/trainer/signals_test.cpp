#include "trainer/signals.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <new>

#include "tensor/error.h"
#include "trainer/exit_codes.h"

namespace infini {
namespace {

TEST(StopSignals, FirstSignalAsksToStopAndFurtherOnesDoNoHarm) {
  const StopSignals signals;
  EXPECT_FALSE(stop_requested());
  std::raise(SIGTERM);
  EXPECT_TRUE(stop_requested());
  EXPECT_EQ(stop_signal(), SIGTERM);
  for (int i = 0; i < 3; ++i) std::raise(SIGINT);
  EXPECT_TRUE(stop_requested());
}

TEST(StopSignals, AfterwardsSignalsEndTheProcessAgain) {
  const pid_t child = fork();
  if (child == 0) {
    { const StopSignals signals; }
    std::raise(SIGTERM);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

template <class E>
int code_of(const E& error, std::string* said = nullptr) {
  ::testing::internal::CaptureStderr();
  const int code = guarded([&]() -> int { throw error; });
  const std::string captured = ::testing::internal::GetCapturedStderr();
  if (said) *said = captured;
  return code;
}

TEST(ExitCodes, TellWhoseMistakeItWas) {
  EXPECT_EQ(guarded([] { return 75; }), kExitStopped);
  EXPECT_EQ(code_of(ConfigError("c")), 2);
  EXPECT_EQ(code_of(DataError("d")), 3);
  EXPECT_EQ(code_of(DeviceError("e")), 4);
  EXPECT_EQ(code_of(std::bad_alloc()), 4);
  EXPECT_EQ(code_of(Error("f")), 1);
  EXPECT_EQ(code_of(std::runtime_error("g")), 1);
}

TEST(ExitCodes, MessageIsPrintedOnce) {
  std::string said;
  code_of(DataError("store.h5: is damaged"), &said);
  EXPECT_EQ(said, "infini: error: store.h5: is damaged\n");
}

}  // namespace
}  // namespace infini
