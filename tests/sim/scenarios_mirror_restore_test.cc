// Traces about copies and restores, in their form for one array: F3, F4, F14, F27, F28, F37 (table:
// scenarios_mirror_cut_test.cc).
#include <gtest/gtest.h>

#include <utility>

#include "sim/mirror_box.h"

namespace duplex::simtest {
namespace {

// s holds A in all regions, p has B in all of them since the split.
void make_backup(MirrorBox& box) {
  box.mirror("m1", "p", "s");
  for (uint64_t region = 0; region < 16; ++region) box.put("p", region, 'A');
  const auto cut = box.split({"m1"}, true);
  ASSERT_TRUE(cut) << cut.error().describe();
  for (uint64_t region = 0; region < 16; ++region) box.put("p", region, 'B');
}

TEST(Traces, F3F27AFlushedWriteDuringARestoreSurvivesAPowerCut) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    make_backup(box);
    box.disk("/dev/s").faults.slow = 0.5;
    ASSERT_TRUE(box.restore("m1"));
    box.put("p", 3, 'C');
    ASSERT_TRUE(box.run(box.flush("p")));
    box.crash(Ending::kPower);
    box.disk("/dev/s").faults.slow = 0;
    box.start();
    EXPECT_EQ(box.get("p", 3), "C");
    box.await("m1", Relation::kSplit);
    EXPECT_EQ(box.get("p", 3), "C");
    EXPECT_EQ(box.get("p", 4), "A");
    EXPECT_EQ(box.get("s", 3), "A") << "the backup is not consumed";
  }
}

TEST(Traces, F27AWriteWithFuaDuringARestoreSurvivesAPowerCut) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    make_backup(box);
    box.disk("/dev/s").faults.slow = 0.5;
    ASSERT_TRUE(box.restore("m1"));
    ASSERT_TRUE(box.run(box.write("p", 12 * kRegionBytes, kRegionBytes, 'C', true)));
    box.crash(Ending::kPower);
    box.disk("/dev/s").faults.slow = 0;
    box.start();
    EXPECT_EQ(box.get("p", 12), "C");
  }
}

TEST(Traces, F4APartialWriteToARegionThatIsNotBackYetKeepsBothParts) {
  MirrorBox box(1);
  make_backup(box);
  box.disk("/dev/s").faults.slow = 1;
  ASSERT_TRUE(box.restore("m1"));
  ASSERT_GT(box.info("m1").missing_bytes, 0u) << "the restore was too fast for this trace";
  EXPECT_EQ(box.get("p", 15), "A") << "readers see the backup at once";
  ASSERT_TRUE(box.run(box.write("p", 15 * kRegionBytes, kBlockBytes, 'C')));
  EXPECT_EQ(box.get("p", 15), "AC");
  box.disk("/dev/s").faults.slow = 0;
  box.await("m1", Relation::kSplit);
  EXPECT_EQ(box.get("p", 15), "AC");
  EXPECT_EQ(box.get("s", 15), "A");
}

// p -> s -> u: u's content comes back to s, and at once from s to p.
TEST(Traces, F4ARestoreOfTheMiddleReachesTheTop) {
  MirrorBox box(1);
  box.mirror("m1", "p", "s");
  box.mirror("m3", "s", "u");
  for (uint64_t region = 0; region < 16; ++region) box.put("p", region, 'A');
  ASSERT_TRUE(box.split({"m1", "m3"}));
  for (uint64_t region = 0; region < 16; ++region) box.put("s", region, 'B');
  ASSERT_TRUE(box.restore("m3"));
  box.await("m3", Relation::kSplit);
  ASSERT_TRUE(box.restore("m1"));
  box.await("m1", Relation::kSplit);
  for (uint64_t region = 0; region < 16; ++region) EXPECT_EQ(box.get("p", region), "A");
}

TEST(Traces, F4ARestoreIsCopiedToTheOtherMirrorsOfItsSource) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    make_backup(box);
    box.mirror("m2", "p", "t");
    ASSERT_TRUE(box.restore("m1"));
    box.await("m2", Relation::kSync);
    ASSERT_TRUE(box.split({"m2"}));
    for (uint64_t region = 0; region < 16; ++region) EXPECT_EQ(box.get("t", region), "A");
    box.await("m1", Relation::kSplit);
    for (uint64_t region = 0; region < 16; ++region) EXPECT_EQ(box.get("p", region), "A");
  }
}

// The copy to t ends somewhere in the restore. Mutations: Transition::stop_downstream() returns at
// once; settle_source() leaves the mode of a leg alone whose copy had ended.
TEST(Traces, F4ARestoreBesideACopyReachesTheTargetOfTheCopy) {
  int beside = 0;
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    make_backup(box);
    ASSERT_TRUE(box.create("m2", "p", "t"));
    box.pass(seed * 3);
    if (box.info("m2").state == Relation::kCopying) ++beside;
    ASSERT_TRUE(box.restore("m1"));
    box.await("m2", Relation::kSync);
    ASSERT_TRUE(box.split({"m2"}));
    for (uint64_t region = 0; region < 16; ++region) ASSERT_EQ(box.get("t", region), "A");
  }
  EXPECT_GT(beside, 20) << "the copies were too fast for this trace";
}

// Twice, from two backups: what the first one brought must not stay anywhere.
TEST(Traces, F4ASecondRestoreFromElsewhereReplacesTheFirst) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    make_backup(box);
    box.mirror("m2", "p", "t");
    ASSERT_TRUE(box.split({"m2"}, true));  // t holds B
    ASSERT_TRUE(box.restore("m1", mirror::Then::kSync));
    box.await("m1", Relation::kSync);
    EXPECT_EQ(box.get("p", 5), "A");
    ASSERT_TRUE(box.restore("m2"));
    box.await("m1", Relation::kSync);
    ASSERT_TRUE(box.split({"m1"}));
    for (uint64_t region = 0; region < 16; ++region) EXPECT_EQ(box.get("s", region), "B");
  }
}

TEST(Traces, F14ACopyBesideWritersEndsAndBothAreEqual) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    box.put("t", 9, 'X');  // old data of the target, where the source is a hole
    ASSERT_TRUE(box.create("m2", "p", "t"));
    for (int round = 0; round < 20; ++round) {
      for (uint64_t region = 0; region < 8; ++region)
        box.put("p", region, static_cast<char>('A' + round));
    }
    box.await("m2", Relation::kSync);
    EXPECT_TRUE(box.is_equal("p", "t"));
    EXPECT_EQ(box.get("p", 9), ".");
  }
}

TEST(Traces, F27AVolumeTakesPartInOneRestoreAtATime) {
  MirrorBox box(1);
  box.mirror("m1", "p", "s");
  box.mirror("m3", "s", "u");
  for (uint64_t region = 0; region < 16; ++region) box.put("p", region, 'A');
  ASSERT_TRUE(box.split({"m1", "m3"}));
  for (uint64_t region = 0; region < 16; ++region) box.put("s", region, 'B');
  box.disk("/dev/t").faults.slow = 1;
  ASSERT_TRUE(box.restore("m3"));
  ASSERT_EQ(box.info("m3").state, Relation::kReverse);
  EXPECT_FALSE(box.restore("m1"));
  box.disk("/dev/t").faults.slow = 0;
  box.await("m3", Relation::kSplit);
  EXPECT_TRUE(box.restore("m1"));
}

TEST(Traces, F27AnUnflushedWriteOfTheTargetIsFlushedBeforeARestore) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    box.mirror("m1", "p", "s");
    ASSERT_TRUE(box.split({"m1"}));
    box.put("s", 2, 'H');
    ASSERT_TRUE(box.restore("m1"));
    box.await("m1", Relation::kSplit);
    box.crash(Ending::kPower);
    box.start();
    EXPECT_EQ(box.get("s", 2), "H");
    EXPECT_EQ(box.get("p", 2), "H");
    box.run(box.array->mirrors().resync({{"m1"}, false}));
    box.await("m1", Relation::kSync);
    EXPECT_TRUE(box.is_equal("p", "s"));
  }
}

// Two volumes with a mirror each, split at one cut; changed since.
class Pairs : public Trace {
 public:
  void prepare(Box& box) override {
    box.add_disk("/dev/p", 8 * kMiB);
    for (const char* name : {"p", "s", "q", "r"}) box.add_volume(name, kVolumeBytes);
    make(box, "m1", "p", "s");
    make(box, "m2", "q", "r");
    for (int i = 0; i < 100 && states(box) != both(Relation::kSync); ++i)
      box.pass(100 * rt::kMillisecond);
    fill(box, 'A');
    const auto cut = box.run(
        box.array->mirrors().split({.names = {"m1", "m2"}, .pairs = {}, .read_only = true}));
    ASSERT_TRUE(cut) << cut.error().describe();
    fill(box, 'B');
    for (const char* name : {"p", "q"}) ASSERT_TRUE(box.run(box.flush(name)));
  }

 protected:
  using States = std::pair<Relation, Relation>;
  static States both(Relation state) { return {state, state}; }
  static States states(Box& box) { return {state(box, "m1"), state(box, "m2")}; }
  static std::string all_of(Box& box, const char* name) {
    return box.letters(name, 0, kVolumeBytes);
  }

 private:
  static void make(Box& box, const char* name, const char* source, const char* target) {
    const auto made = box.run(box.array->mirrors().create(
        {.name = name, .source = source, .target = target, .copy = true, .overwrite = true}));
    ASSERT_TRUE(made) << made.error().describe();
  }
  static Relation state(Box& box, const char* name) {
    const auto shown = box.run(box.array->mirrors().show(name));
    return shown ? shown->state : Relation::kSimplex;
  }
  static void fill(Box& box, char letter) {
    for (const char* name : {"p", "q"})
      ASSERT_TRUE(box.run(box.write(name, 0, kVolumeBytes, letter)));
  }
};

// F28: state and maps of a restore change in one transaction, for all that one verb names: all of
// p and q is the backup, or nothing. Mutation: events() runs one transition after the other.
class RestoreCutOff : public Pairs {
 public:
  rt::Task<> play(Box& box) override {
    const auto restored = co_await box.array->mirrors().restore({.names = {"m1", "m2"}});
    EXPECT_TRUE(restored) << restored.error().describe();
  }
  void check(Box& box) override {
    const std::string all = all_of(box, "p");
    EXPECT_TRUE(all == "A" || all == "B") << all;
    EXPECT_EQ(all_of(box, "q"), all);
    for (int i = 0; i < 100 && states(box) != both(Relation::kSplit); ++i)
      box.pass(100 * rt::kMillisecond);
    EXPECT_EQ(states(box), both(Relation::kSplit));
    for (const char* name : {"p", "q"}) EXPECT_EQ(all_of(box, name), all);
    for (const char* name : {"s", "r"}) EXPECT_EQ(all_of(box, name), "A");
  }
};

// The same of a resync. Mutation: as above.
class ResyncCutOff : public Pairs {
 public:
  rt::Task<> play(Box& box) override {
    const auto begun = co_await box.array->mirrors().resync({{"m1", "m2"}, false});
    EXPECT_TRUE(begun) << begun.error().describe();
  }
  void check(Box& box) override {
    const States now = states(box);
    EXPECT_EQ(now.first == Relation::kSplit, now.second == Relation::kSplit);
    if (now == both(Relation::kSplit)) return;
    for (int i = 0; i < 100 && states(box) != both(Relation::kSync); ++i)
      box.pass(100 * rt::kMillisecond);
    EXPECT_EQ(states(box), both(Relation::kSync));
  }
};

TEST(Traces, F28ARestoreHappensWhollyOrNotAtAll) {
  EXPECT_GT(cut_everywhere<RestoreCutOff>(Ending::kPowerInStore, 2), 3u);
  EXPECT_GT(cut_everywhere<RestoreCutOff>(Ending::kPower, 1), 3u);
}

TEST(Traces, F28AResyncOfSeveralBeginsForAllOrForNone) {
  EXPECT_GT(cut_everywhere<ResyncCutOff>(Ending::kPowerInStore, 2), 3u);
  EXPECT_GT(cut_everywhere<ResyncCutOff>(Ending::kPower, 1), 3u);
}

TEST(Traces, F37AfterADeleteInTheMiddleOfACopyTheTargetIsNotOpened) {
  MirrorBox box(1);
  box.mirror("m1", "p", "s");
  ASSERT_TRUE(box.split({"m1"}));
  for (uint64_t region = 0; region < 16; ++region) box.put("p", region, 'B');
  box.disk("/dev/s").faults.slow = 1;
  ASSERT_TRUE(box.resync("m1"));
  ASSERT_EQ(box.info("m1").state, Relation::kCopying);
  const auto removed = box.run(box.array->mirrors().remove("m1", false));
  ASSERT_TRUE(removed) << removed.error().describe();
  box.disk("/dev/s").faults.slow = 0;
  EXPECT_EQ(box.get("s", 0), "error");
  box.crash(Ending::kPower);
  box.start();
  EXPECT_EQ(box.get("s", 0), "error") << "durably";
  box.mirror("m1", "p", "s");
  ASSERT_TRUE(box.split({"m1"}));
  EXPECT_EQ(box.get("s", 0), "B");
}

// What p lacks s alone has, when t's image comes back over it: what s has is overwritten, too.
// Mutation: Transition::settle_source() without Tracker::drop(): p reads C.
// Mutation: record_downstream() records the map of the other mirror whole: C after the power cut.
TEST(Traces, F4ARestoreEndsWhatIsMissingAtAnotherTarget) {
  for (const bool is_cut : {false, true}) {
    SCOPED_TRACE(is_cut);
    MirrorBox box(1);
    box.mirror("m1", "p", "s");
    box.mirror("m2", "p", "t");
    for (uint64_t region = 0; region < 16; ++region) box.put("p", region, 'A');
    ASSERT_TRUE(box.split({"m2"}));
    box.put("p", 3, 'B');
    box.disk("/dev/p").faults.write_error = 1;
    box.put("p", 3, 'C');
    box.put("p", 5, 'D');
    ASSERT_EQ(box.info("m1").missing_bytes, 2 * kRegionBytes);
    ASSERT_TRUE(box.run(box.flush("p")));
    ASSERT_TRUE(box.restore("m2"));
    EXPECT_EQ(box.info("m1").missing_bytes, 0u);
    EXPECT_EQ(box.get("p", 3), "A");
    EXPECT_EQ(box.get("p", 5), "A");
    if (is_cut) box.crash(Ending::kPower);
    box.disk("/dev/p").faults.write_error = 0;
    if (is_cut) box.start();
    EXPECT_EQ(box.get("p", 3), "A");
    box.await("m2", Relation::kSplit);
    box.await("m1", Relation::kSync);
    EXPECT_EQ(box.get("p", 3), "A");
    EXPECT_EQ(box.get("p", 5), "A");
    EXPECT_TRUE(box.is_equal("p", "s"));
  }
}

// The own backing loses what came back from t for the second mirror to hold, and what is written
// then is at s alone: t is a holder no more. Mutation: write_missing_back() ends after its first
// pass and settle_start() chooses no holder (one of the two is enough here): p reads A.
TEST(Traces, F27WhatCameBackAndIsLostAgainIsReadAtTheMirrorThatHeldItAfterAPowerCut) {
  MirrorBox box(1);
  box.mirror("m2", "p", "t");
  box.mirror("m1", "p", "s");
  for (uint64_t region = 0; region < 16; ++region) box.put("p", region, 'A');
  ASSERT_TRUE(box.split({"m2"}));
  for (uint64_t region = 0; region < 16; ++region) box.put("p", region, 'B');
  ASSERT_TRUE(box.run(box.flush("p")));
  ASSERT_TRUE(box.restore("m2"));
  box.disk("/dev/p").faults.flush_error = 1;
  box.pass(8 * rt::kSecond);
  box.put("p", 2, 'C');
  ASSERT_TRUE(box.run(box.flush("p")));
  box.crash(Ending::kPower);
  box.disk("/dev/p").faults.flush_error = 0;
  box.start();
  EXPECT_EQ(box.get("p", 2), "C");
  EXPECT_EQ(box.get("p", 3), "A");
  box.await("m2", Relation::kSplit);
  box.await("m1", Relation::kSync);
  EXPECT_EQ(box.get("p", 2), "C");
  EXPECT_TRUE(box.is_equal("p", "s"));
}

// The write is under way when the delete looks. Mutation: prepare() without refuse_a_holder().
TEST(Traces, F4ADeleteIsRefusedWhenAWriteUnderWayLeavesTheTargetTheOnlyHolder) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    box.mirror("m1", "p", "s");
    box.put("p", 4, 'A');
    ASSERT_TRUE(box.run(box.flush("p")));
    box.disk("/dev/p").faults.slow = box.disk("/dev/p").faults.write_error = 1;
    const auto writing = box.simulation.start(box.machine.control(),
                                              box.write("p", 4 * kRegionBytes, kRegionBytes, 'B'));
    box.pass(rt::kMillisecond);
    box.disk("/dev/p").faults.slow = 0;
    EXPECT_FALSE(box.run(box.array->mirrors().remove("m1", false)));
    box.pass(10 * rt::kSecond);
    ASSERT_TRUE(writing->done);
    ASSERT_TRUE(*writing->value);
    box.disk("/dev/p").faults.write_error = 0;
    box.await("m1", Relation::kSync);
    EXPECT_EQ(box.get("p", 4), "B");
    EXPECT_TRUE(box.run(box.array->mirrors().remove("m1", false)));
    EXPECT_EQ(box.get("p", 4), "B");
  }
}

// A read of the source that began at the backup, and waits for its disk, when the restore ends.
// Mutation: read_blocks() does not look again after it has read a target.
TEST(Traces, F25AReadThatBeganInARestoreNeverFindsWhatTheBackupIsGivenLater) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    box.mirror("m1", "p", "s");
    box.put("p", 4, 'A');
    ASSERT_TRUE(box.split({"m1"}));
    box.put("p", 4, 'B');
    box.disk("/dev/s").faults.slow = 1;
    ASSERT_TRUE(box.restore("m1"));
    const auto reading =
        box.simulation.start(box.machine.control(), box.read("p", 4 * kRegionBytes, kRegionBytes));
    box.pass(rt::kMillisecond);
    box.disk("/dev/s").faults.slow = 0;
    box.await("m1", Relation::kSplit);
    box.put("s", 4, 'C');
    box.pass(10 * rt::kSecond);
    ASSERT_TRUE(reading->done);
    EXPECT_EQ(*reading->value, "A");
  }
}

// The same of a region that was missing in SYNC.
TEST(Traces, F25AReadOfAMissingRegionNeverFindsWhatHostsOfASplitTargetWrite) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    box.mirror("m1", "p", "s");
    box.put("p", 4, 'A');
    box.disk("/dev/p").faults.write_error = 1;
    box.put("p", 4, 'B');
    ASSERT_GT(box.info("m1").missing_bytes, 0u);
    box.disk("/dev/s").faults.slow = 1;
    const auto reading =
        box.simulation.start(box.machine.control(), box.read("p", 4 * kRegionBytes, kRegionBytes));
    box.pass(rt::kMillisecond);
    box.disk("/dev/s").faults.slow = 0;
    box.disk("/dev/p").faults.write_error = 0;
    // Brings the region back.
    ASSERT_TRUE(box.run(box.write("p", 4 * kRegionBytes, kBlockBytes, 'B')));
    box.await("m1", Relation::kSync);
    ASSERT_TRUE(box.split({"m1"}));
    box.put("s", 4, 'C');
    box.pass(10 * rt::kSecond);
    ASSERT_TRUE(reading->done);
    EXPECT_EQ(*reading->value, "B");
  }
}

// A cancel ends the job first; then the source cannot be flushed, and the restore stays what it is.
// Mutation: MirrorsImpl::watch() without `restores`: it stays REVERSE, and nobody moves anything.
TEST(Traces, F4ARestoreGoesOnWhenItsCancelHasFailed) {
  MirrorBox box(1);
  box.mirror("m1", "p", "s");
  box.put("p", 4, 'A');
  ASSERT_TRUE(box.split({"m1"}, true));
  box.put("p", 4, 'B');
  box.disk("/dev/s").faults.read_error = 1;
  ASSERT_TRUE(box.restore("m1"));
  box.put("p", 15, 'C');
  box.disk("/dev/p").faults.flush_error = 1;
  const auto job = box.array->jobs().number_of("m1");
  ASSERT_TRUE(job);
  EXPECT_FALSE(box.run(box.array->jobs().cancel(*job, true)));
  EXPECT_EQ(box.info("m1").state, Relation::kReverse);
  box.disk("/dev/p").faults.flush_error = 0;
  box.disk("/dev/s").faults.read_error = 0;
  box.await("m1", Relation::kSplit);
  EXPECT_EQ(box.get("p", 4), "A");
}

}  // namespace
}  // namespace duplex::simtest
