#include "mirror/mirrors.h"

#include <gtest/gtest.h>

#include "mirror/test_mirrors.h"

namespace duplex::mirror {
namespace {

class MirrorsTest : public testing::PairTest {
 protected:
  // m from p to s on d2, and m2 from p to s2 on d3.
  void make_two_sync() {
    t.add_device("/d3");
    t.add_volume("s2", "d3");
    ASSERT_TRUE(t.write("p", 0, kMiB, 1));
    make_sync();
    ASSERT_TRUE(t.create("m2", "p", "s2"));
    ASSERT_TRUE(t.reaches("m2", Relation::kSync));
  }
};

TEST_F(MirrorsTest, CopiesWhatTheSourceHoldsAndKeepsTheTargetEqual) {
  ASSERT_TRUE(t.write("p", 0, kMiB, 1));
  make_sync();
  ASSERT_TRUE(t.write("p", 2 * kMiB, 8192, 2));
  EXPECT_EQ(t.desk.last("copy")->last.bytes_moved, kMiB);
  const auto cut = split({"m"});
  ASSERT_TRUE(cut) << cut.error().describe();
  EXPECT_EQ(t.read("s", 0, kMiB), 1);
  EXPECT_EQ(t.read("s", 2 * kMiB, 8192), 2);
  EXPECT_EQ(t.read("s", 4 * kMiB, 8192), 0);
}

TEST_F(MirrorsTest, HostsFindTheTargetProtectedUntilItIsSplit) {
  make_sync();
  const auto refused = t.write("s", 0, 4096, 9);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kWriteProtected);
  ASSERT_TRUE(split({"m"}));
  EXPECT_TRUE(t.write("s", 0, 4096, 9));
  EXPECT_EQ(t.read("p", 0, 4096), 0);
}

TEST_F(MirrorsTest, AResyncCopiesTheUnionOfBothSidesChanges) {
  ASSERT_TRUE(t.write("p", 0, 4 * kMiB, 1));
  make_sync();
  ASSERT_TRUE(split({"m"}));
  ASSERT_TRUE(t.write("p", 0, 4096, 2));
  ASSERT_TRUE(t.write("s", kMiB, 4096, 3));
  EXPECT_EQ(t.show("m").changed_bytes_source, kRegionBytes);
  EXPECT_EQ(t.show("m").changed_bytes_target, kRegionBytes);
  ASSERT_TRUE(resync("m"));
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  EXPECT_EQ(t.desk.last("copy")->last.bytes_moved, 2 * kRegionBytes);
  ASSERT_TRUE(split({"m"}));
  EXPECT_EQ(t.read("s", 0, 4096), 2);
  EXPECT_EQ(t.read("s", kMiB, 4096), 1);
}

TEST_F(MirrorsTest, ARestoreGivesTheImageOfTheCutBackAndLeavesTheTargetAlone) {
  ASSERT_TRUE(t.write("p", 0, 4 * kMiB, 1));
  make_sync();
  ASSERT_TRUE(split({"m"}));
  ASSERT_TRUE(t.write("p", 0, kMiB, 2));
  const auto plan = t.run(t.mirrors->plan_restore({.names = {"m"}}));
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->bytes_overwritten, kMiB);
  const auto begun = t.run(t.mirrors->restore({.names = {"m"}}));
  ASSERT_TRUE(begun) << begun.error().describe();
  EXPECT_EQ(t.read("p", 0, kMiB), 1) << "at once";
  ASSERT_TRUE(t.write("p", 512 * kKiB, 4096, 5));
  ASSERT_TRUE(t.reaches("m", Relation::kSplit));
  EXPECT_EQ(t.read("p", 0, 512 * kKiB), 1);
  EXPECT_EQ(t.read("p", 512 * kKiB, 4096), 5);
  EXPECT_EQ(t.read("s", 512 * kKiB, 4096), 1);
  EXPECT_EQ(t.show("m").changed_bytes_source, kRegionBytes);
}

// Its source falls back to what it held: to its other targets that is a change, too.
// Mutation: the row of the cancel does not have kMissingDownstream.
TEST_F(MirrorsTest, ACancelledRestoreIsCopiedToTheOtherTargets) {
  t.add_volume("s2", "d2");
  ASSERT_TRUE(t.write("p", 0, 8 * kMiB, 1));
  make_sync();
  ASSERT_TRUE(t.create("m2", "p", "s2"));
  ASSERT_TRUE(t.reaches("m2", Relation::kSync));
  ASSERT_TRUE(split({"m"}));
  ASSERT_TRUE(t.write("p", 0, 8 * kMiB, 2));
  ASSERT_TRUE(t.run(t.mirrors->restore({.names = {"m"}})));
  Work* const work = t.desk.last("restore")->work;
  ASSERT_NE(work, nullptr);
  ASSERT_TRUE(t.run(work->pause()));
  ASSERT_TRUE(t.reaches("m2", Relation::kSync));
  EXPECT_GT(t.show("m").missing_bytes, 0u);
  ASSERT_TRUE(t.run(work->cancel(true)));
  EXPECT_EQ(t.show("m").state, Relation::kSplit);
  ASSERT_TRUE(t.reaches("m2", Relation::kSync));
  ASSERT_TRUE(t.run(t.mirrors->verify({"m2"})));
  for (int i = 0; i < 100 && !t.desk.last("verify")->end; ++i) t.pass(rt::kSecond / 10);
  EXPECT_EQ(t.desk.last("verify")->end, JobDesk::End::kDone);
}

// What a host flushed after it would be lost if the record turns out to be there.
// Mutation: restore() gives the target its access back, whatever the error; nobody refuses writes.
TEST_F(MirrorsTest, ARestoreInDoubtKeepsBothSidesAsTheyAreUntilTheNextStart) {
  ASSERT_TRUE(t.write("p", 0, 4 * kMiB, 1));
  make_sync();
  ASSERT_TRUE(split({"m"}));
  ASSERT_TRUE(t.write("p", 0, kMiB, 2));
  ASSERT_TRUE(t.flush("p"));
  faults("/state/state.db-wal").flush_error = 1;
  const auto refused = t.run(t.mirrors->restore({.names = {"m"}}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kInDoubt);
  EXPECT_EQ(t.read("p", 0, kMiB), 2);
  const auto written = t.write("p", 0, 4096, 3);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), Code::kInDoubt);
  const auto offered = t.volumes->find("s");
  EXPECT_TRUE(offered && offered->read_only);
  EXPECT_EQ(t.events.count("restore_in_doubt"), 1u);
  faults("/state/state.db-wal").flush_error = 0;
  t.crash();
  t.open();
  const bool was_stored = t.show("m").state == Relation::kReverse;
  ASSERT_TRUE(t.reaches("m", Relation::kSplit));
  EXPECT_EQ(t.read("p", 0, kMiB), was_stored ? 1 : 2);
  EXPECT_EQ(t.read("s", 0, kMiB), 1);
  EXPECT_TRUE(t.write("p", 0, 4096, 3));
}

// The next start may find the restore: what was answered meanwhile would be gone. Mutations: run()
// opens the gates first and refuses writes then; write_blocks() does not look behind the gate.
TEST_F(MirrorsTest, ARestoreInDoubtRefusesAWriteThatHasWaitedForIt) {
  ASSERT_TRUE(t.write("p", 0, kMiB, 1));
  make_sync();
  ASSERT_TRUE(split({"m"}));
  ASSERT_TRUE(t.write("p", 0, kMiB, 2));
  ASSERT_TRUE(t.flush("p"));
  volume::Gate& gate = t.member("p").volume().gate();
  faults("/state/state.db-wal").flush_error = 1;
  auto restored = t.begin(t.mirrors->restore({.names = {"m"}, .online = true}));
  while (gate.is_open()) t.pass(1);
  auto written = t.begin_write("p", 0, 4096, 3);
  auto zeroed = t.begin_zero("p", {64 * kKiB, 4096});
  ASSERT_FALSE(gate.is_open());
  for (const auto& one : {written, zeroed}) {
    const Result<void> done = t.end_of(one);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code(), Code::kInDoubt);
  }
  EXPECT_FALSE(t.end_of(restored));
  EXPECT_EQ(t.read("p", 0, kMiB), 2);
}

// It is equal on both sides, and P has it in a cache only. Mutation: missing_from_union() leaves
// out what is unsafe.
TEST_F(MirrorsTest, ARestoreAlsoBringsWhatTheSourceCouldStillLose) {
  ASSERT_TRUE(t.write("p", 0, kMiB, 1));
  make_sync();
  ASSERT_TRUE(t.write("p", 0, kMiB, 2));
  ASSERT_TRUE(split({"m"}));
  ASSERT_TRUE(t.run(t.mirrors->restore({.names = {"m"}})));
  ASSERT_TRUE(t.reaches("m", Relation::kSplit));
  faults("/d1").flush_error = 1;
  EXPECT_TRUE(t.flush("p"));
  EXPECT_EQ(t.read("p", 0, kMiB), 2);
}

// The region that comes back clears its bit, which the restore has just set for it. Mutation:
// settle_source() does not tell the other targets again.
TEST(Restore, OfARegionThatComesBackFromAnotherTargetMeanwhileReachesThatOneToo) {
  for (rt::Micros delay = 0; delay < 400; delay += 3) {
    testing::TestMirrors t;
    for (const char* path : {"/d1", "/d2", "/d3"}) t.add_device(path);
    t.add_volume("p", "d1");
    t.add_volume("s", "d2");
    t.add_volume("s2", "d3");
    ASSERT_TRUE(t.write("p", 0, kMiB, 1));
    for (const auto& [name, target] : {std::pair("m", "s"), std::pair("m2", "s2")}) {
      ASSERT_TRUE(t.create(name, "p", target));
      ASSERT_TRUE(t.reaches(name, Relation::kSync));
    }
    ASSERT_TRUE(t.run(t.mirrors->split({.names = {"m2"}, .pairs = {}})));
    ASSERT_TRUE(t.write("p", 0, kMiB, 2));
    t.box.disk().find("/d1")->faults.write_error = 1;
    ASSERT_TRUE(t.write("p", 0, 4096, 3));
    t.box.disk().find("/d1")->faults.write_error = 0;
    t.pass(delay);
    ASSERT_TRUE(t.run(t.mirrors->restore({.names = {"m2"}})));
    ASSERT_TRUE(t.reaches("m2", Relation::kSplit) && t.reaches("m", Relation::kSync));
    ASSERT_TRUE(t.run(t.mirrors->split({.names = {"m"}, .pairs = {}})));
    ASSERT_EQ(t.read("p", 0, kMiB), 1) << delay;
    ASSERT_EQ(t.read("s", 0, kMiB), 1) << delay;
  }
}

TEST_F(MirrorsTest, ARestoreThatGoesOnToSyncEndsEqual) {
  ASSERT_TRUE(t.write("p", 0, 4 * kMiB, 1));
  make_sync();
  ASSERT_TRUE(split({"m"}));
  ASSERT_TRUE(t.write("p", 0, kMiB, 2));
  ASSERT_TRUE(t.write("s", 2 * kMiB, 4096, 7));
  ASSERT_TRUE(t.run(t.mirrors->restore({.names = {"m"}, .then = Then::kSync})));
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  EXPECT_EQ(t.read("p", 0, kMiB), 1);
  EXPECT_EQ(t.read("p", 2 * kMiB, 4096), 7);
  EXPECT_EQ(t.show("m").changed_bytes(), 0u);
}

TEST_F(MirrorsTest, AfterAPowerCutOnlyWhatWasHotIsCopiedAgain) {
  ASSERT_TRUE(t.write("p", 0, 12 * kMiB, 1));
  make_sync();
  ASSERT_TRUE(t.write("p", 5 * kMiB, 4096, 2));
  ASSERT_TRUE(t.flush("p"));
  t.crash();
  t.open();
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  EXPECT_EQ(t.read("p", 5 * kMiB, 4096), 2);
  ASSERT_NE(t.desk.last("copy"), nullptr);
  EXPECT_LE(t.desk.last("copy")->last.bytes_done, 4 * kMiB);
  ASSERT_TRUE(split({"m"}));
  EXPECT_EQ(t.read("s", 5 * kMiB, 4096), 2);
  EXPECT_EQ(t.read("s", 0, 5 * kMiB), 1);
}

TEST_F(MirrorsTest, ACleanStopLeavesNothingToCopy) {
  ASSERT_TRUE(t.write("p", 0, kMiB, 1));
  make_sync();
  ASSERT_TRUE(t.write("p", kMiB, kMiB, 2));
  t.stop();
  const size_t jobs = t.desk.jobs.size();
  t.open();
  EXPECT_EQ(t.show("m").state, Relation::kSync);
  EXPECT_EQ(t.desk.jobs.size(), jobs);
  ASSERT_TRUE(split({"m"}));
  EXPECT_EQ(t.read("s", kMiB, kMiB), 2);
}

TEST_F(MirrorsTest, StatesNamesAndMapsSurviveACrashWhileSplit) {
  ASSERT_TRUE(t.write("p", 0, kMiB, 1));
  make_sync();
  ASSERT_TRUE(t.run(t.mirrors->create_group("g", {"m"})));
  const auto cut = split({"g"});
  ASSERT_TRUE(cut);
  ASSERT_TRUE(t.write("p", 0, 4096, 2));
  ASSERT_TRUE(t.write("s", 8 * kMiB, 4096, 3));
  ASSERT_TRUE(t.flush("p"));
  ASSERT_TRUE(t.flush("s"));
  t.crash();
  t.open();
  const MirrorInfo info = t.show("m");
  EXPECT_EQ(info.state, Relation::kSplit);
  EXPECT_EQ(info.cut, cut->id);
  EXPECT_EQ(info.groups, std::vector<std::string>{"g"});
  EXPECT_EQ(t.run(t.mirrors->list()).size(), 1u);
  EXPECT_EQ(t.mirrors->cuts().size(), 1u);
  // Mutation: the start does not store the target's map while it takes the marks off. Then the
  // second crash has forgotten what the target's host wrote.
  t.crash();
  t.open();
  ASSERT_TRUE(resync("g"));
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  ASSERT_TRUE(split({"m"}));
  EXPECT_EQ(t.read("s", 0, 4096), 2);
  EXPECT_EQ(t.read("s", 8 * kMiB, 4096), 0);
}

TEST_F(MirrorsTest, ATargetThatFailsAWriteIsSuspendedAndComesBackByItself) {
  ASSERT_TRUE(t.write("p", 0, kMiB, 1));
  make_sync();
  faults("/d2").write_error = 1;
  EXPECT_TRUE(t.write("p", 0, 4096, 2)) << "the host does not notice";
  ASSERT_TRUE(t.reaches("m", Relation::kSuspended));
  EXPECT_EQ(t.events.count("mirror_suspended"), 1u);
  faults("/d2").write_error = 0;
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  ASSERT_TRUE(split({"m"}));
  EXPECT_EQ(t.read("s", 0, 4096), 2);
}

// What it lost in a mirror concerns no host that opens it afterwards, and what it lost before no
// mirror. Mutations: add_leg() forgets no losses; settle_target() forgets none.
TEST_F(MirrorsTest, NobodyHearsOfWhatATargetLostBeforeTheyCame) {
  ASSERT_TRUE(t.write("s", 0, 4096, 1));
  faults("/d2").flush_error = 1;
  ASSERT_FALSE(t.flush("s"));
  faults("/d2").flush_error = 0;
  ASSERT_TRUE(
      t.run(t.mirrors->create({.name = "m", .source = "p", .target = "s", .overwrite = true})));
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  ASSERT_TRUE(t.write("p", 0, 4096, 2));
  ASSERT_TRUE(t.flush("p"));
  EXPECT_EQ(t.events.count("mirror_suspended"), 0u);
  ASSERT_TRUE(t.write("p", 0, 4096, 3));
  faults("/d2").flush_error = 1;
  ASSERT_TRUE(t.flush("p"));
  faults("/d2").flush_error = 0;
  ASSERT_TRUE(t.reaches("m", Relation::kSuspended));
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  ASSERT_TRUE(t.run(t.mirrors->remove("m", true)));
  EXPECT_TRUE(t.flush("s"));
}

// Mutation: info_of() says 100 of a mirror without a job.
TEST_F(MirrorsTest, TheProgressOfASuspendedMirrorIsTheShareThatIsEqual) {
  ASSERT_TRUE(t.write("p", 0, kMiB, 1));
  make_sync();
  faults("/d2").write_error = 1;
  ASSERT_TRUE(t.write("p", 0, 4 * kMiB, 2));
  ASSERT_TRUE(t.reaches("m", Relation::kSuspended));
  EXPECT_EQ(t.show("m").changed_bytes_source, 4 * kMiB);
  EXPECT_EQ(t.show("m").progress, 75.0) << "of 16 MiB";
}

// Mutation: remove() does not tell the desk.
TEST_F(MirrorsTest, AJobThatStoodStillEndsWithItsMirror) {
  ASSERT_TRUE(t.write("p", 0, 4 * kMiB, 1));
  faults("/d2").write_error = 1;
  ASSERT_TRUE(t.create("m", "p", "s"));
  ASSERT_TRUE(t.reaches("m", Relation::kSuspended));
  EXPECT_EQ(t.desk.last("copy")->end, JobDesk::End::kStopped);
  ASSERT_TRUE(t.run(t.mirrors->remove("m", true)));
  EXPECT_EQ(t.desk.last("copy")->end, JobDesk::End::kCancelled);
}

TEST_F(MirrorsTest, AnOwnBackingThatFailsAWriteIsReadFromTheTargetAndRepaired) {
  ASSERT_TRUE(t.write("p", 0, kMiB, 1));
  make_sync();
  faults("/d1").write_error = 1;
  EXPECT_TRUE(t.write("p", 0, 4096, 2)) << "the target has it";
  EXPECT_EQ(t.read("p", 0, 4096), 2);
  EXPECT_EQ(t.read("p", 4096, 4096), 1);
  EXPECT_FALSE(split({"m"})) << "only the target has a region";
  faults("/d1").write_error = 0;
  for (int i = 0; i < 100 && t.show("m").missing_bytes > 0; ++i) t.pass(rt::kSecond / 10);
  EXPECT_EQ(t.show("m").missing_bytes, 0u);
  EXPECT_EQ(t.read("p", 0, 4096), 2);
  EXPECT_TRUE(split({"m"}));
}

// The next start may find it split, and its hosts write there what nobody may read here. Mutation:
// stay_in_doubt() leaves the origins alone.
TEST_F(MirrorsTest, NothingBecomesMissingAtTheTargetOfACutInDoubt) {
  make_two_sync();
  faults("/d1").write_error = 1;
  ASSERT_TRUE(t.write("p", 0, 4096, 2));
  ASSERT_GT(t.show("m").missing_bytes, 0u);
  faults("/d1").write_error = 0;
  for (int i = 0; i < 100 && t.show("m").missing_bytes > 0; ++i) t.pass(rt::kSecond / 10);
  ASSERT_TRUE(t.flush("p"));
  faults("/state/state.db-wal").flush_error = 1;
  ASSERT_EQ(split({"m"}).error().code(), Code::kInDoubt);
  faults("/d1").read_error = 1;
  EXPECT_EQ(t.read("p", 0, 4096), 2);
  t.pass(rt::kSecond / 10);
  ASSERT_EQ(t.events.count("region_repaired"), 1u);
  faults("/d1") = {.write_error = 1, .flush_error = 1};
  EXPECT_TRUE(t.flush("p"));
  EXPECT_EQ(t.show("m").missing_bytes, 0u);
  EXPECT_GT(t.show("m2").missing_bytes, 0u);
}

// It had come back from one, was lost again, and is missing at the other one, which got all that
// was written since. Mutations: choose_holders() ranks by number alone; it drops nothing.
TEST_F(MirrorsTest, WhatACrashLeavesMissingAtTwoTargetsIsMissingAtTheOneThatTookTheWrites) {
  make_two_sync();
  faults("/d2").write_error = 1;
  ASSERT_TRUE(t.write("p", 0, 4096, 2));
  ASSERT_TRUE(t.reaches("m", Relation::kSuspended));
  for (const char* name : {"m", "m2"}) {
    const auto missing = static_cast<uint32_t>(t.show(name).id.value() * 4 + 1);
    ASSERT_TRUE(t.run(t.marks->write_words(missing, {{.extent = 0, .regions = 1}})));
  }
  t.crash();
  t.open();
  EXPECT_EQ(t.show("m").missing_bytes, 0u);
  ASSERT_NE(t.desk.last("repair"), nullptr);
  EXPECT_EQ(t.desk.last("repair")->what.mirror, "m2");
  EXPECT_EQ(t.read("p", 0, 4096), 2);
}

TEST_F(MirrorsTest, AVerifyOfEqualVolumesChangesNothing) {
  ASSERT_TRUE(t.write("p", 0, kMiB, 1));
  make_sync();
  ASSERT_TRUE(t.run(t.mirrors->verify({"m"})));
  for (int i = 0; i < 100 && !t.desk.last("verify")->end; ++i) t.pass(rt::kSecond / 10);
  EXPECT_EQ(t.desk.last("verify")->end, JobDesk::End::kDone);
  EXPECT_EQ(t.show("m").state, Relation::kSync);
}

// Mutation: differing() compares nothing.
TEST_F(MirrorsTest, AVerifyThatFindsADifferenceFailsAndSuspendsTheMirror) {
  ASSERT_TRUE(t.write("p", 0, kMiB, 1));
  make_sync();
  t.stop();
  const std::vector<std::byte> wrong(4096, std::byte{0x55});
  sim::DiskFile& disk = *t.box.disk().find("/d2");
  for (uint64_t at = 0; at + kRegionBytes <= disk.size(); at += kRegionBytes) {
    std::vector<std::byte> there(512);
    disk.read(at, there);
    if (there != std::vector<std::byte>(512, std::byte{1})) continue;
    disk.plant(at, wrong);
    break;
  }
  t.open();
  ASSERT_TRUE(t.run(t.mirrors->verify({"m"})));
  for (int i = 0; i < 100 && !t.desk.last("verify")->end; ++i) t.pass(rt::kSecond / 10);
  EXPECT_EQ(t.desk.last("verify")->end, JobDesk::End::kFailed);
  EXPECT_EQ(t.show("m").state, Relation::kSuspended);
  EXPECT_EQ(t.show("m").changed_bytes_source, kRegionBytes);
  EXPECT_EQ(t.events.count("mirror_differs"), 1u);
  ASSERT_TRUE(resync("m"));
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  ASSERT_TRUE(split({"m"}));
  EXPECT_EQ(t.read("s", 0, kMiB), 1);
}

TEST_F(MirrorsTest, AChainIsSplitAtOnePoint) {
  t.add_volume("s2", "d2");
  ASSERT_TRUE(t.write("p", 0, kMiB, 1));
  make_sync();
  ASSERT_TRUE(t.create("m2", "s", "s2"));
  ASSERT_TRUE(t.reaches("m2", Relation::kSync));
  ASSERT_TRUE(t.write("p", 0, 4096, 2));
  ASSERT_TRUE(split({"m2"}));
  EXPECT_EQ(t.show("m").state, Relation::kSync);
  EXPECT_EQ(t.read("s2", 0, 4096), 2);
  ASSERT_TRUE(t.write("p", 0, 4096, 3));
  EXPECT_EQ(t.read("s2", 0, 4096), 2);
  EXPECT_FALSE(t.create("m3", "s2", "p")) << "a circle";
}

TEST_F(MirrorsTest, ADeletedMirrorLeavesBothVolumes) {
  ASSERT_TRUE(t.write("p", 0, kMiB, 1));
  make_sync();
  const auto removed = t.run(t.mirrors->remove("m", false));
  ASSERT_TRUE(removed) << removed.error().describe();
  EXPECT_EQ(t.run(t.mirrors->list()).size(), 0u);
  EXPECT_EQ(t.read("s", 0, kMiB), 1);
  EXPECT_TRUE(t.run(t.volumes->remove("s", false)));
  t.crash();
  t.open();
  EXPECT_EQ(t.run(t.mirrors->list()).size(), 0u);
}

TEST_F(MirrorsTest, ATargetThatHoldsDataIsTakenOnlyWhenAskedFor) {
  ASSERT_TRUE(t.write("s", 0, kMiB, 4));
  ASSERT_TRUE(t.write("p", 8 * kMiB, 4096, 1));
  const auto refused = t.create("m", "p", "s");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message().find("1M"), std::string_view::npos)
      << refused.error().describe();
  ASSERT_TRUE(
      t.run(t.mirrors->create({.name = "m", .source = "p", .target = "s", .overwrite = true})));
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  ASSERT_TRUE(split({"m"}));
  EXPECT_EQ(t.read("s", 0, kMiB), 0);
  EXPECT_EQ(t.read("s", 8 * kMiB, 4096), 1);
}

}  // namespace
}  // namespace duplex::mirror
