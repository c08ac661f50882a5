// What a verify does to its mirror.
#include <gtest/gtest.h>

#include <stdexcept>

#include "mirror/mirrors.h"
#include "mirror/test_mirrors.h"

namespace duplex::mirror {
namespace {

using testing::TestMirrors;

class VerifyTest : public testing::PairTest {
 protected:
  void SetUp() override {
    PairTest::SetUp();
    ASSERT_TRUE(t.write("p", 0, 8 * kMiB, 1));
    make_sync();
    ASSERT_TRUE(t.flush("p"));
  }
  sim::DiskFile& disk() { return PairTest::disk("/d2"); }
  // Regions of the target's device that hold what was written, in their order there.
  std::vector<uint64_t> places() {
    std::vector<uint64_t> found;
    for (uint64_t at = 0; at + kRegionBytes <= disk().size(); at += kRegionBytes) {
      std::vector<std::byte> there(512);
      disk().read(at, there);
      if (there == std::vector<std::byte>(512, std::byte{1})) found.push_back(at);
    }
    return found;
  }
  void spoil(std::initializer_list<size_t> regions) {
    const std::vector<std::byte> wrong(4096, std::byte{0x55});
    const std::vector<uint64_t> all = places();
    for (const size_t number : regions) disk().plant(all.at(number), wrong);
  }
  void begin() { ASSERT_TRUE(t.run(t.mirrors->verify({"m"}))); }
  Work& work() {
    Work* const found = t.desk.last("verify")->work;
    if (found == nullptr) throw std::runtime_error("the verify has ended");
    return *found;
  }
  void pause() { ASSERT_TRUE(t.run(work().pause())); }
  void go_on() { ASSERT_TRUE(t.run(work().resume())); }
  JobDesk::End end() {
    for (int i = 0; i < 600 && !t.desk.last("verify")->end; ++i) t.pass(rt::kSecond / 10);
    EXPECT_TRUE(t.desk.last("verify")->end) << "it never ends";
    return t.desk.last("verify")->end.value_or(JobDesk::End::kStopped);
  }
  void slowly() { ASSERT_TRUE(t.run(work().set_rate(kMiB))); }
  Relation state() { return t.show("m").state; }
  void expect_equal() {
    const auto cut = split();
    ASSERT_TRUE(cut) << cut.error().describe();
    EXPECT_EQ(t.read("s", 0, 8 * kMiB), 1);
  }
};

// Mutations: compare() does not tell the verifier that the bits are there; accuse() sets no bit.
TEST_F(VerifyTest, OneResyncTakesAllThatAVerifyHasFound) {
  spoil({0, 1, 40, 127});
  begin();
  EXPECT_EQ(end(), JobDesk::End::kFailed);
  EXPECT_EQ(state(), Relation::kSuspended);
  EXPECT_EQ(t.show("m").changed_bytes_source, 4 * kRegionBytes);
  EXPECT_NE(t.show("m").reason.find("4 regions (262144 bytes), the first at 0"), std::string::npos)
      << t.show("m").reason;
  EXPECT_FALSE(split());
  EXPECT_EQ(t.events.count("mirror_differs"), 2u) << "the first one, and all of it";
  ASSERT_TRUE(resync());
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  EXPECT_EQ(t.desk.last("copy")->last.bytes_moved, 4 * kRegionBytes);
  expect_equal();
}

// Mutation: run() returns kFound at the end only.
TEST_F(VerifyTest, TheMirrorIsSuspendedWhileTheVerifyGoesOn) {
  spoil({0, 100});
  begin();
  slowly();
  for (int i = 0; i < 20 && state() == Relation::kSync; ++i) t.pass(rt::kSecond / 10);
  EXPECT_EQ(state(), Relation::kSuspended);
  EXPECT_FALSE(t.desk.last("verify")->end);
  EXPECT_EQ(t.show("m").changed_bytes_source, kRegionBytes);
  EXPECT_NE(t.show("m").reason.find("goes on"), std::string::npos) << t.show("m").reason;
}

// What it had found was copied meanwhile: at its end nothing is wrong any more. Mutations:
// differs() makes an event of all that was found; the end of the copy ends the verify.
TEST_F(VerifyTest, AResyncWhileItRunsIsNotAccusedAfterwards) {
  spoil({0});
  begin();
  slowly();
  ASSERT_TRUE(t.reaches("m", Relation::kSuspended));
  pause();
  ASSERT_TRUE(resync());
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  EXPECT_FALSE(t.desk.last("verify")->end);
  go_on();
  EXPECT_EQ(end(), JobDesk::End::kFailed) << "it says what it has found";
  EXPECT_EQ(t.desk.last("verify")->last.bytes_done, TestMirrors::kVolume) << "it went to the end";
  EXPECT_EQ(state(), Relation::kSync);
  EXPECT_EQ(t.show("m").changed_bytes_source, 0u);
  expect_equal();
}

TEST_F(VerifyTest, WhatItFindsAfterAResyncSuspendsAgain) {
  spoil({0, 100});
  begin();
  slowly();
  ASSERT_TRUE(t.reaches("m", Relation::kSuspended));
  pause();
  ASSERT_TRUE(resync());
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  go_on();
  EXPECT_EQ(end(), JobDesk::End::kFailed);
  EXPECT_EQ(state(), Relation::kSuspended);
  EXPECT_EQ(t.show("m").changed_bytes_source, kRegionBytes);
  ASSERT_TRUE(resync());
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  expect_equal();
}

// Bits that were found in SUSPENDED outlive a crash. Mutation: run() does not write them.
TEST_F(VerifyTest, WhatItHasFoundIsThereAfterACrash) {
  spoil({0, 100, 127});
  begin();
  EXPECT_EQ(end(), JobDesk::End::kFailed);
  t.crash();
  t.open();
  EXPECT_EQ(state(), Relation::kSuspended);
  EXPECT_GE(t.show("m").changed_bytes_source, 3 * kRegionBytes);
  ASSERT_TRUE(resync());
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  expect_equal();
}

// Somebody has cut the end off the target's device. Mutation: differing() returns every error of
// the target.
TEST_F(VerifyTest, WhatTheTargetHasLostIsWrittenAgain) {
  const std::vector<uint64_t> all = places();
  disk().truncate(all.at(100));
  begin();
  EXPECT_EQ(end(), JobDesk::End::kFailed);
  EXPECT_EQ(state(), Relation::kSuspended);
  EXPECT_EQ(t.show("m").changed_bytes_source, 28 * kRegionBytes);
  EXPECT_NE(t.show("m").reason.find("cannot be read there"), std::string::npos);
  EXPECT_FALSE(split());
  disk().truncate(128 * kMiB);
  ASSERT_TRUE(resync());
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  expect_equal();
}

// Mutation: counts() does not ask whether the device is there.
TEST_F(VerifyTest, ATargetThatIsAwayIsNotAccusedOfAllItHolds) {
  begin();
  slowly();
  t.pass(rt::kSecond / 10);
  pause();
  disk().faults.gone = true;
  t.pass(2 * rt::kSecond);
  go_on();
  EXPECT_EQ(end(), JobDesk::End::kFailed);
  EXPECT_LE(t.show("m").changed_bytes_source, kRegionBytes);
  disk().faults.gone = false;
}

// Mutation: tell_found() does not ask again.
TEST_F(VerifyTest, AStoreThatRefusesIsAskedAgain) {
  spoil({0});
  bool& full = faults("/state/state.db-wal").full;
  full = true;
  begin();
  t.pass(3 * rt::kSecond);
  EXPECT_EQ(state(), Relation::kSync);
  EXPECT_FALSE(t.desk.last("verify")->end) << "it waits";
  full = false;
  EXPECT_EQ(end(), JobDesk::End::kFailed);
  EXPECT_EQ(state(), Relation::kSuspended);
  EXPECT_EQ(t.show("m").changed_bytes_source, kRegionBytes);
}

// The next start has SYNC without a bit otherwise, and nobody ever hears of it again. Mutation:
// stop() does not call keep_difference().
TEST_F(VerifyTest, WhatItHasFoundIsKnownAfterAStopThatComesFirst) {
  spoil({0, 100});
  bool& full = faults("/state/state.db-wal").full;
  full = true;
  begin();
  t.pass(3 * rt::kSecond);
  ASSERT_EQ(state(), Relation::kSync) << "it has not been told";
  full = false;
  t.stop();
  t.open();
  EXPECT_EQ(state(), Relation::kSuspended);
  EXPECT_EQ(t.show("m").changed_bytes_source, kRegionBytes) << "the verify waited at the first one";
  ASSERT_TRUE(resync());
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
}

}  // namespace
}  // namespace duplex::mirror
