// The end of a stop: in time, or by force.
#include "duplexd/stop_watch.h"

#include <gtest/gtest.h>

#include "base/log.h"

namespace duplex {
namespace {

using std::chrono::milliseconds;

TEST(StopWatchTest, AStopThatHangsEndsTheProcessAndSaysWhatItWaitedFor) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto hang = [] {
    set_log_sink({});
    StopWatch watch(milliseconds(100));
    watch.waits_for("the clients");
    watch.waits_for("the devices");
    std::this_thread::sleep_for(std::chrono::seconds(30));
  };
  EXPECT_EXIT(hang(), testing::ExitedWithCode(1), "still waits for the devices");
}

TEST(StopWatchTest, AStopInTimeIsLeftAlone) {
  for (int i = 0; i < 100; ++i) {
    StopWatch watch(milliseconds(10'000));
    watch.waits_for("nothing");
  }
  const auto begin = std::chrono::steady_clock::now();
  {
    const StopWatch watch(milliseconds(10'000));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(5'000)) << "it waits for no one";
}

}  // namespace
}  // namespace duplex
