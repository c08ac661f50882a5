// Traces about cuts and mirrors in SYNC, in their form for one array:
//
//   trace        form                                                     test
//   F1 F2 F30    writers during a split of a chain and a side branch      here, sim/mirror_scene.h
//   F3 F4 F27    restore, hosts at the source meanwhile, a chain          scenarios_mirror_restore
//   F5           power goes when the split has been answered              here
//   F9           groups over a link: a fault of a remote mirror; none in one array
//   F11 F12      a path that is not in sync; a target that fails          here
//   F13          legs and marks cut anywhere                              scenarios_marks_test.cc
//   F14 F37      a copy beside writers; delete in the middle of it        scenarios_mirror_restore
//   F22          the end of a chain fails, then the power                 here
//   F31          a write that ends in an error         src/volume/target_legs_test.cc
//   F23 F24      the own backing fails, or loses its cache                here
//   F25          a write of an ended session           src/volume/target_legs_test.cc
//   F26          two cuts of one root                                     here
//   F28          a restore, cut at every write of the store               scenarios_mirror_restore
//   F29          random runs: verbs right after a split of a chain        sim/mirror_scene.h
//   F32 to F35   marks, extents, the mark log, rebuild scenarios_{marks,extents,state,labels}_test
//   F36          a target is absent at the start                          here
#include <gtest/gtest.h>

#include <atomic>

#include "sim/mirror_box.h"

namespace duplex::simtest {
namespace {

// Writes A to Z over all regions of p, one after the other, from the front to the back.
rt::Task<> write_letters(MirrorBox& box, const std::atomic<bool>& stop) {
  for (uint64_t n = 0; !stop; ++n) {
    co_await box.write("p", n % 16 * kRegionBytes, kBlockBytes,
                       static_cast<char>('A' + n / 16 % 26));
  }
}

void make_tree(MirrorBox& box) {
  box.mirror("m1", "p", "s");
  box.mirror("m2", "p", "t");
  box.mirror("m3", "s", "u");
}

// Letters rise from front to back once: in a prefix of the order only the last one written may be
// ahead of those behind it.
bool is_prefix(const std::vector<std::byte>& bytes) {
  int falls = 0;
  for (uint64_t region = 0; region + 1 < 16; ++region) {
    const auto here = bytes[region * kRegionBytes], next = bytes[(region + 1) * kRegionBytes];
    if (here == next) continue;
    ++falls;
    const int step = static_cast<int>(here) - static_cast<int>(next);
    if (step != 1 && step != -25 && next != std::byte{0}) return false;
  }
  return falls <= 1;
}

// Targets take long, so old and new writes are under way for a while. In the second form the middle
// volume is no member: the writes it forwards carry the epoch of the root (trace F2).
TEST(Traces, F1F2F30AllTargetsOfACutHoldTheSamePrefix) {
  const std::vector<std::string> forms[] = {{"m1", "m2", "m3"}, {"m2", "m3"}};
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    make_tree(box);
    std::atomic<bool> stop = false;
    const auto writer = box.simulation.start(box.machine.control(), write_letters(box, stop));
    box.pass(20 * rt::kMillisecond);
    for (const char* path : {"/dev/s", "/dev/t"}) box.disk(path).faults.slow = 0.02;
    const auto cut = box.split(forms[seed % 2], true);
    for (const char* path : {"/dev/s", "/dev/t"}) box.disk(path).faults.slow = 0;
    ASSERT_TRUE(cut || cut.error().code() == Code::kTimeout) << cut.error().describe();
    box.pass(20 * rt::kMillisecond);
    stop = true;
    ASSERT_TRUE(box.simulation.finish(*writer));
    if (!cut) continue;
    box.put("p", 0, '!');
    EXPECT_TRUE(box.is_equal("t", "u"));
    EXPECT_EQ(box.is_equal("s", "u"), seed % 2 == 0) << "a middle volume that is no member goes on";
    EXPECT_TRUE(is_prefix(box.raw("t")));
  }
}

TEST(Traces, F5WhatWasAcknowledgedBeforeASplitSurvivesAPowerCutThere) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    box.mirror("m1", "p", "s");
    box.mirror("m2", "p", "t");
    for (uint64_t region = 0; region < 8; ++region) box.put("p", region, 'A');
    ASSERT_TRUE(box.split({"m1", "m2"}));
    box.crash(Ending::kPower);
    box.start();
    for (uint64_t region = 0; region < 8; ++region) {
      EXPECT_EQ(box.get("s", region), "A");
      EXPECT_EQ(box.get("t", region), "A");
    }
  }
}

TEST(Traces, F11ATargetBelowAMirrorThatCopiesCannotBeSplit) {
  MirrorBox box(1);
  make_tree(box);
  ASSERT_TRUE(box.split({"m1"}));
  for (uint64_t region = 0; region < 16; ++region) box.put("p", region, 'B');
  box.disk("/dev/p").faults.slow = 1;
  ASSERT_TRUE(box.resync("m1"));
  ASSERT_EQ(box.info("m1").state, Relation::kCopying);
  const auto cut = box.split({"m3"});
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code(), Code::kState);
  box.disk("/dev/p").faults.slow = 0;
  box.await("m1", Relation::kSync);
  ASSERT_TRUE(box.split({"m3"}));
  EXPECT_EQ(box.get("u", 0), "B");
}

// An old write that its own backing refuses; a new one brings the region back while the cut
// flushes. On disk it is still missing: decided now, a start would read it from a volume that has
// hosts of its own. Mutation: finish() without is_returning().
TEST(Traces, F24ARegionThatComesBackWhileACutFlushesMakesItVoid) {
  int reached = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    box.mirror("m1", "p", "s");
    box.put("p", 4, 'A');
    ASSERT_TRUE(box.run(box.flush("p")));
    sim::DiskFaults& faults = box.disk("/dev/p").faults;
    faults.slow = faults.write_error = 1;
    rt::Core& control = box.machine.control();
    const auto old =
        box.simulation.start(control, box.write("p", 4 * kRegionBytes, kRegionBytes, 'B'));
    box.pass(rt::kMillisecond);
    const auto cut = box.simulation.start(
        control, box.array->mirrors().split({.names = {"m1"}, .pairs = {}, .read_only = false}));
    while (!cut->done && box.info("m1").missing_bytes == 0) box.pass(100);
    if (cut->done) continue;  // the old write took too long
    box.pass(2 * rt::kMillisecond);
    faults.slow = faults.write_error = 0;
    ASSERT_TRUE(box.run(box.write("p", 4 * kRegionBytes, kBlockBytes, 'C')));
    EXPECT_EQ(box.info("m1").missing_bytes, 0u);
    if (cut->done) continue;  // its flush was faster
    ++reached;
    ASSERT_TRUE(box.simulation.finish(*cut));
    ASSERT_TRUE(box.simulation.finish(*old));
    EXPECT_FALSE(*cut->value);
    box.await("m1", Relation::kSync);
    EXPECT_TRUE(box.is_equal("p", "s"));
  }
  EXPECT_GT(reached, 10);
}

TEST(Traces, F12ASplitThatATargetFailsLeavesNobodySplit) {
  MirrorBox box(1);
  box.mirror("m1", "p", "s");
  box.mirror("m2", "p", "t");
  box.put("p", 0, 'A');
  box.disk("/dev/t").faults.flush_error = 1;
  ASSERT_FALSE(box.split({"m1", "m2"}));
  box.disk("/dev/t").faults.flush_error = 0;
  EXPECT_NE(box.info("m1").state, Relation::kSplit);
  EXPECT_NE(box.info("m2").state, Relation::kSplit);
  box.put("p", 1, 'B');
  for (const char* name : {"m1", "m2"}) {
    ASSERT_TRUE(box.resync(name));
    box.await(name, Relation::kSync);
  }
  EXPECT_TRUE(box.is_equal("p", "s"));
  EXPECT_TRUE(box.is_equal("p", "t"));
}

TEST(Traces, F22ACrashAfterTheMiddleOfAChainLeftBringsAllThreeTogether) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    box.mirror("m1", "p", "s");
    box.mirror("m3", "s", "u");
    box.put("p", 0, 'A');
    box.disk("/dev/t").faults.write_error = 1;
    box.run(box.write("p", 0, kRegionBytes, 'B'));
    box.crash(Ending::kPower);
    box.disk("/dev/t").faults.write_error = 0;
    box.start();
    for (const char* name : {"m1", "m3"}) {
      box.run(box.array->mirrors().resync({{name}, false}));
      box.await(name, Relation::kSync);
    }
    EXPECT_TRUE(box.is_equal("p", "s"));
    EXPECT_TRUE(box.is_equal("s", "u"));
  }
}

TEST(Traces, F23ALostCacheOfTheSourceIsMadeGoodFromTheTarget) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    box.mirror("m1", "p", "s");
    for (uint64_t region = 0; region < 8; ++region) box.put("p", region, 'A');
    box.disk("/dev/p").faults.flush_error = 1;
    EXPECT_TRUE(box.run(box.flush("p"))) << "the target has it all";
    box.disk("/dev/p").faults.flush_error = 0;
    for (uint64_t region = 0; region < 8; ++region) EXPECT_EQ(box.get("p", region), "A");
    box.await("m1", Relation::kSync);
    EXPECT_TRUE(box.is_equal("p", "s"));
  }
}

TEST(Traces, F24AWriteTheSourceRefusedIsReadAtTheTargetAlsoAfterACrash) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    box.mirror("m1", "p", "s");
    box.put("p", 0, 'A');
    ASSERT_TRUE(box.run(box.flush("p")));
    box.disk("/dev/p").faults.write_error = 1;
    box.put("p", 0, 'B');
    EXPECT_EQ(box.get("p", 0), "B");
    const auto early = box.split({"m1"});
    ASSERT_FALSE(early) << "only the target has it";
    EXPECT_NE(early.error().describe().find("its repair runs"), std::string::npos)
        << early.error().describe();
    ASSERT_TRUE(box.run(box.flush("p")));
    box.crash(Ending::kPower);
    box.start();
    EXPECT_EQ(box.get("p", 0), "B");
    box.disk("/dev/p").faults.write_error = 0;
    // A write to a part brings the rest back first.
    ASSERT_TRUE(box.run(box.write("p", 0, kBlockBytes, 'C')));
    EXPECT_EQ(box.get("p", 0), "BC");
    box.await("m1", Relation::kSync);
    EXPECT_TRUE(box.is_equal("p", "s"));
    EXPECT_TRUE(box.split({"m1"}));
  }
}

TEST(Traces, F26TwoCutsOfOneRootAreOneAfterTheOther) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    MirrorBox box(seed);
    box.mirror("m1", "p", "s");
    box.mirror("m2", "p", "t");
    std::atomic<bool> stop = false;
    const auto writer = box.simulation.start(box.machine.control(), write_letters(box, stop));
    box.pass(20 * rt::kMillisecond);
    const auto split = [&](const char* name) {
      return box.simulation.start(
          box.machine.control(),
          box.array->mirrors().split({.names = {name}, .pairs = {}, .read_only = true}));
    };
    const auto one = split("m1"), other = split("m2");
    ASSERT_TRUE(box.simulation.finish(*one) && box.simulation.finish(*other));
    stop = true;
    ASSERT_TRUE(box.simulation.finish(*writer));
    for (const auto* cut : {&*one->value, &*other->value})
      EXPECT_TRUE(*cut || cut->error().code() == Code::kBusy) << cut->error().describe();
    if (*one->value) EXPECT_TRUE(is_prefix(box.raw("s")));
    if (*other->value) EXPECT_TRUE(is_prefix(box.raw("t")));
    if (*one->value && *other->value) EXPECT_NE((*one->value)->id, (*other->value)->id);
  }
}

TEST(Traces, F36WithTheTargetAbsentAtTheStartHostsAreServed) {
  for (const Ending ending : {Ending::kPower, Ending::kKill}) {
    MirrorBox box(1);
    box.mirror("m1", "p", "s");
    box.put("p", 0, 'A');
    box.crash(ending);
    box.disk("/dev/s").faults.gone = true;
    box.start();
    EXPECT_EQ(box.info("m1").state, Relation::kSuspended);
    box.put("p", 1, 'B');
    EXPECT_TRUE(box.run(box.flush("p")));
    box.stop();
    box.disk("/dev/s").faults.gone = false;
    box.start();
    box.await("m1", Relation::kSync);
    EXPECT_TRUE(box.is_equal("p", "s"));
    EXPECT_EQ(box.get("p", 1), "B");
  }
}

}  // namespace
}  // namespace duplex::simtest
