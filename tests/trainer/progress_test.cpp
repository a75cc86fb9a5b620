#include "trainer/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace infini {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

const ProgressState kState{.step = 250,
                           .total_steps = 1000,
                           .elapsed_seconds = 100,
                           .first_step = 200,
                           .tokens_per_second = 12345,
                           .loss = 2,
                           .learning_rate = 3e-4,
                           .gradient_norm = 0.5,
                           .peak_bytes = std::int64_t{3} << 29};

TEST(Progress, LineShowsEveryFigure) {
  EXPECT_EQ(progress_line(kState, 142),
            "[=======                       ] step 250/1000  left 25:00  loss 2.0000  ppl 7.389  "
            "lr 3.00e-04  |g| 0.5  12.3k tok/s  1.5 GiB");
}

TEST(Progress, NarrowTerminalLosesTheBarThenTheEnd) {
  EXPECT_THAT(progress_line(kState, 100), StartsWith("step 250/1000"));
  EXPECT_EQ(progress_line(kState, 40).size(), 40u);
}

TEST(Progress, OpenEndHasNoBar) {
  ProgressState state = kState;
  state.total_steps = 0;
  EXPECT_THAT(progress_line(state, 200), StartsWith("step 250  loss"));
}

TEST(Progress, FirstStepKnowsNoTimeLeft) {
  ProgressState state = kState;
  state.first_step = state.step;
  EXPECT_THAT(progress_line(state, 200), Not(HasSubstr("left")));
}

TEST(Progress, ReadingShowsTokensSpeedAndTimeLeft) {
  const ReadingState state{.tokens = 125'000, .total_tokens = 500'000, .elapsed_seconds = 2.5};
  EXPECT_EQ(
      reading_line(state, 100),
      "[=======                       ] read 125.0k of 500.0k tokens  50.0k tok/s  left 0:07");
  EXPECT_EQ(reading_line(state, 55), "read 125.0k of 500.0k tokens  50.0k tok/s  left 0:07");
  EXPECT_EQ(reading_line({.total_tokens = 900}, 40), "[                 ] read 0 of 900 tokens");
}

TEST(Progress, AwayFromATerminalNothingIsDrawn) {
  ::testing::internal::CaptureStderr();
  {
    Progress progress(/*terminal=*/false, 1000);
    progress.update(kState);
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(Progress, OnATerminalTheLineIsRedrawnAndLeftStanding) {
  ::testing::internal::CaptureStderr();
  {
    Progress progress(/*terminal=*/true, 1000);
    progress.update(kState);
  }
  const std::string drawn = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(drawn, StartsWith("\r\033[K"));
  EXPECT_TRUE(drawn.ends_with("\n"));
}

TEST(Progress, FiguresReadAsPeopleWriteThem) {
  EXPECT_EQ(bytes_text(512), "512 B");
  EXPECT_EQ(bytes_text(150 << 20), "150 MiB");
  EXPECT_EQ(duration_text(59.9), "0:59");
  EXPECT_EQ(duration_text(3723), "1:02:03");
  EXPECT_EQ(count_text(999), "999");
  EXPECT_EQ(count_text(2.5e6), "2.50M");
}

}  // namespace
}  // namespace infini
