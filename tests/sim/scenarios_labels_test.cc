// Trace F35: labels name all devices, and a device takes extents only when they do (table:
// scenarios_test.cc).
#include <gtest/gtest.h>

#include "sim/scenario.h"

namespace duplex::simtest {
namespace {

// A volume that fills the first disk grows onto a second one that is being added. Then that second
// one and the state directory are gone. Flushed data may be missing, but never without a word.
struct SecondDiskComesAndGoes : Trace {
  bool is_flushed = false;
  uint64_t places = 0;

  void prepare(Box& box) override {
    box.add_disk("/dev/a", 4 * kMiB);
    places = box.free_extents();
    box.add_volume("a", (places + 1) * kExtent);
    ASSERT_TRUE(box.run(box.write("a", 0, places * kExtent, 'A')));
    ASSERT_TRUE(box.run(box.flush("a")));
    box.plug_in("/dev/b", 4 * kMiB);
  }
  rt::Task<> play(Box& box) override {
    const auto added = co_await box.array->pool().add_device(
        {.path = "/dev/b", .name = {}, .extent_bytes = kExtent, .overwrite = true});
    EXPECT_TRUE(added) << added.error().describe();
    EXPECT_TRUE(co_await box.write("a", places * kExtent, kExtent, 'B'));
    EXPECT_TRUE(co_await box.flush("a"));
    is_flushed = true;
  }
  void recover(Box& box) override {
    box.lose_state();
    box.disk("/dev/b").faults.gone = true;
  }
  void check(Box& box) override {
    const auto report = box.rebuild({"/dev/a"});
    if (is_flushed) ASSERT_FALSE(report) << "flushed data is missing and nobody says so";
    if (!report) {
      EXPECT_EQ(report.error().code(), Code::kNoDevice) << report.error().describe();
      const auto agreed = box.rebuild({"/dev/a"}, true);
      ASSERT_TRUE(agreed) << agreed.error().describe();
      EXPECT_EQ(agreed->damaged_volumes, std::vector<std::string>{"a"});
      return;
    }
    EXPECT_TRUE(report->damaged_volumes.empty());
    box.start();
    EXPECT_EQ(box.letters("a", 0, places * kExtent), "A");
    EXPECT_EQ(box.letters("a", places * kExtent, kExtent), ".");
  }
};

TEST(Traces, F35_ADeviceTakesNoExtentsBeforeEveryLabelNamesIt) {
  SecondDiskComesAndGoes trace;
  Box box(5);
  trace.prepare(box);
  box.disk("/dev/a").faults.write_error = 1;  // so its label goes on naming /dev/a alone
  static_cast<void>(box.run(box.array->pool().add_device(
      {.path = "/dev/b", .name = {}, .extent_bytes = kExtent, .overwrite = true})));
  const uint64_t last = trace.places * kExtent;
  const auto early = box.run(box.write("a", last, kExtent, 'B'));
  ASSERT_FALSE(early) << "a rebuild without /dev/b would not miss it";
  EXPECT_EQ(early.error().code(), Code::kNoSpace) << early.error().describe();
  box.disk("/dev/a").faults.write_error = 0;
  box.pass(5 * rt::kSecond);
  ASSERT_TRUE(box.run(box.write("a", last, kExtent, 'B')));
  ASSERT_TRUE(box.run(box.flush("a")));
  box.crash(Ending::kPower);
  trace.is_flushed = true;
  trace.recover(box);
  trace.check(box);
}

TEST(Traces, F35_ARebuildWithoutADeviceIsRefusedOrNothingIsMissing) {
  EXPECT_GT(cut_everywhere<SecondDiskComesAndGoes>(Ending::kPower), 30u);
  EXPECT_GT(cut_everywhere<SecondDiskComesAndGoes>(Ending::kPowerInStore), 2u);
}

}  // namespace
}  // namespace duplex::simtest
