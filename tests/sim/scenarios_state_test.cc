// Traces about what the store, the labels and the map logs say of each other: F17, F20, F33 (table:
// scenarios_test.cc).
#include <gtest/gtest.h>

#include "sim/mirror_box.h"

namespace duplex::simtest {
namespace {

constexpr uint64_t kDisk = 8 * kMiB;

// One disk, a volume with 'A' in its first extent, flushed.
void make_small_array(Box& box) {
  box.add_disk("/dev/a", kDisk);
  box.add_volume("a", 16 * kExtent);
  ASSERT_TRUE(box.run(box.write("a", 0, kExtent, 'A')));
  ASSERT_TRUE(box.run(box.flush("a")));
}

TEST(Traces, F17_AnOldCopyOfTheStateDirectoryIsRefused) {
  // What happened between the copy and the end: each changes which extent is whose.
  enum class Since { kWrite, kTrim, kDelete, kCreate };
  for (const Since since : {Since::kWrite, Since::kTrim, Since::kDelete, Since::kCreate}) {
    for (const bool cleanly : {true, false}) {
      SCOPED_TRACE(testing::Message() << static_cast<int>(since) << cleanly);
      Box box(1);
      make_small_array(box);
      box.stop();
      const Box::State old = box.copy_state();
      box.start();
      if (since == Since::kWrite) {
        ASSERT_TRUE(box.run(box.write("a", 8 * kExtent, 4096, 'B')));
        ASSERT_TRUE(box.run(box.flush("a")));
      }
      if (since == Since::kTrim) {
        ASSERT_TRUE(box.run(box.trim("a", 0, kExtent)));
        ASSERT_TRUE(box.run(box.flush("a")));
      }
      if (since == Since::kDelete) ASSERT_TRUE(box.run(box.array->volumes().remove("a", false)));
      if (since == Since::kCreate) box.add_volume("b", kMiB);
      box.pass(rt::kSecond);
      if (cleanly) box.stop();
      const Box::State now = box.copy_state();
      box.crash(Ending::kKill);
      box.put_state(old);
      const auto started = box.try_start();
      ASSERT_FALSE(started) << "the maps of last week on the extents of today";
      EXPECT_EQ(started.error().code(), Code::kStale);
      EXPECT_NE(started.error().next().find("--rebuild"), std::string_view::npos);
      box.crash(Ending::kKill);
      // Nothing was touched: with the right one it goes on.
      box.put_state(now);
      box.start();
      if (since == Since::kWrite) EXPECT_EQ(box.letters("a", 8 * kExtent, 4096), "B");
      if (since != Since::kTrim && since != Since::kDelete) {
        EXPECT_EQ(box.letters("a", 0, kExtent), "A");
      }
    }
  }
}

// What happened since the copy is known to the state directory alone: p was written after a split,
// and no extent changed hands. Going on from the copy, a resync would copy nothing and call two
// volumes equal that are not. Mutation: PoolImpl::begin_life() does nothing.
TEST(Traces, F17_AnOldCopyIsRefusedThoughOnlyTheChangeMapsHaveGoneOn) {
  for (const Ending ending : {Ending::kKill, Ending::kPower}) {
    for (const bool cleanly : {true, false}) {
      SCOPED_TRACE(testing::Message() << static_cast<int>(ending) << cleanly);
      MirrorBox box(6);
      box.mirror("m1", "p", "s");
      for (uint64_t region = 0; region < 16; ++region) box.put("p", region, 'A');
      ASSERT_TRUE(box.split({"m1"}));
      box.stop();
      const Box::State old = box.copy_state();
      box.start();
      box.put("p", 3, 'B');
      ASSERT_TRUE(box.run(box.flush("p")));
      if (cleanly) box.stop();
      box.crash(ending);
      const Box::State now = box.copy_state();
      box.put_state(old);
      const auto started = box.try_start();
      ASSERT_FALSE(started) << "the maps of before the write";
      EXPECT_EQ(started.error().code(), Code::kStale);
      EXPECT_NE(started.error().next().find("--rebuild"), std::string_view::npos);
      box.crash(Ending::kKill);
      box.put_state(now);
      box.start();
      EXPECT_EQ(box.info("m1").state, Relation::kSplit);
      ASSERT_TRUE(box.resync("m1"));
      box.await("m1", Relation::kSync);
      EXPECT_TRUE(box.is_equal("p", "s"));
    }
  }
}

// The store has the number of a start before any label has it: no crash inside a start makes the
// next one take its own state directory for an old copy.
struct CutInsideAStart : Trace {
  void prepare(Box& box) override {
    make_small_array(box);
    box.add_disk("/dev/b", kDisk);
    box.stop();
  }
  rt::Task<> play(Box& box) override {
    auto opened = co_await box.open();
    EXPECT_TRUE(opened) << opened.error().describe();
    if (opened) box.array = std::move(*opened);
  }
  void check(Box& box) override {
    EXPECT_EQ(box.device("/dev/b").state, pool::DeviceState::kOnline);
    EXPECT_EQ(box.letters("a", 0, kExtent), "A");
  }
};

TEST(Traces, F17_NoCrashInsideAStartMakesTheNextOneRefuse) {
  EXPECT_GT(cut_everywhere<CutInsideAStart>(Ending::kPower, 2), 30u);
  EXPECT_GT(cut_everywhere<CutInsideAStart>(Ending::kKill, 2), 30u);
  EXPECT_GT(cut_everywhere<CutInsideAStart>(Ending::kPowerInStore, 2), 4u);
}

TEST(Traces, F17_AfterARebuildTheLostStateDirectoryIsRefusedWhenItTurnsUp) {
  for (const bool started_since : {false, true}) {
    SCOPED_TRACE(started_since);
    Box box(2);
    make_small_array(box);
    box.crash(Ending::kPower);
    const Box::State lost = box.copy_state();
    box.lose_state();
    const auto report = box.rebuild({"/dev/a"});
    ASSERT_TRUE(report) << report.error().describe();
    EXPECT_TRUE(report->damaged_volumes.empty());
    const Box::State rebuilt = box.copy_state();
    if (started_since) {
      box.start();
      box.stop();
    }
    const Box::State now = started_since ? box.copy_state() : rebuilt;
    box.put_state(lost);
    const auto started = box.try_start();
    ASSERT_FALSE(started) << "two state directories for one set of devices";
    EXPECT_EQ(started.error().code(), Code::kStale);
    box.crash(Ending::kKill);
    box.put_state(now);
    box.start();
    EXPECT_EQ(box.letters("a", 0, kExtent), "A");
    EXPECT_EQ(box.letters("a", kExtent, 15 * kExtent), ".");
  }
}

// The store shares a file system that fills up. What needs no new extent goes on; what needs one
// fails and leaves nothing behind; with space again all goes on.
TEST(Traces, F20_WithAFullStateDirectoryMappedExtentsAreWrittenAndNewOnesRefused) {
  Box box(3);
  make_small_array(box);
  const auto set_full = [&box](bool full) {
    for (const char* path : {"/state/state.db", "/state/state.db-wal"}) {
      box.disk(path).faults.full = full;
    }
  };
  set_full(true);
  uint64_t taken = 0;  // the log of the store may have some room left
  Result<void> refused;
  for (uint64_t extent = 1; extent < 16 && refused; ++extent) {
    refused = box.run(box.write("a", extent * kExtent, 4096, 'B'));
    if (refused) ++taken;
  }
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kNoSpace) << refused.error().describe();
  ASSERT_TRUE(box.run(box.write("a", 0, kExtent, 'C')));
  ASSERT_TRUE(box.run(box.flush("a")));
  EXPECT_EQ(box.array->pool().usage().used_bytes, (1 + taken) * kExtent);
  box.crash(Ending::kPower);
  set_full(false);
  box.start();
  EXPECT_EQ(box.letters("a", 0, kExtent), "C");
  EXPECT_EQ(box.letters("a", (1 + taken) * kExtent, (15 - taken) * kExtent), ".");
  ASSERT_TRUE(box.run(box.write("a", 15 * kExtent, 4096, 'D')));
  EXPECT_EQ(box.letters("a", 15 * kExtent, 4096), "D");
}

// The state directory's disk fails for good: no extent is handed out any more, ever, but mapped
// ones are served, and the next start finds all that was promised.
TEST(Traces, F20_WithABrokenStoreMappedExtentsAreServedAndNothingElseIsPromised) {
  Box box(4);
  make_small_array(box);
  box.disk("/state/state.db-wal").faults.flush_error = 1;
  EXPECT_FALSE(box.run(box.write("a", kExtent, 4096, 'B')));
  box.disk("/state/state.db-wal").faults.flush_error = 0;
  EXPECT_FALSE(box.run(box.write("a", 2 * kExtent, 4096, 'B'))) << "a failed flush is for good";
  ASSERT_TRUE(box.run(box.write("a", 0, kExtent, 'C')));
  ASSERT_TRUE(box.run(box.flush("a")));
  box.crash(Ending::kPower);
  box.start();
  EXPECT_EQ(box.letters("a", 0, kExtent), "C");
  EXPECT_TRUE(only(box.letters("a", kExtent, kExtent), ".")) << "no byte was written there";
  ASSERT_TRUE(box.run(box.write("a", kExtent, 4096, 'D')));
}

// Writes that need extents, a TRIM and an extent that changes hands, each flushed. Then the state
// directory is lost as well, and the devices alone must know what was flushed.
struct FlushedThenStateLost : Trace {
  enum class Flushed { kNothing, kWrite, kTrim, kReuse } flushed = Flushed::kNothing;

  void prepare(Box& box) override {
    box.add_disk("/dev/a", 4 * kMiB);
    box.add_volume("a", 4 * kExtent);
    box.add_volume("b", kExtent);
    ASSERT_TRUE(box.run(box.write("a", 0, kExtent, 'A')));
    box.add_volume("rest", (box.free_extents() - 1) * kExtent, true);
    ASSERT_TRUE(box.run(box.flush("a")));
    ASSERT_TRUE(box.run(box.flush("rest")));
    box.pass(rt::kSecond);
  }
  rt::Task<> play(Box& box) override {
    EXPECT_TRUE(co_await box.write("a", kExtent, 4096, 'B'));
    EXPECT_TRUE(co_await box.flush("a"));
    flushed = Flushed::kWrite;
    EXPECT_TRUE(co_await box.trim("a", 0, kExtent));
    EXPECT_TRUE(co_await box.flush("a"));
    flushed = Flushed::kTrim;
    EXPECT_TRUE(co_await box.write("b", 0, kExtent, 'C'));  // where A was
    EXPECT_TRUE(co_await box.flush("b"));
    flushed = Flushed::kReuse;
  }
  void recover(Box& box) override {
    box.lose_state();
    const auto report = box.rebuild({"/dev/a"});
    ASSERT_TRUE(report) << report.error().describe();
    EXPECT_EQ(report->volumes.size(), 3u);
    EXPECT_TRUE(report->damaged_volumes.empty());
    box.start();
  }
  void check(Box& box) override {
    const std::string first = box.letters("a", 0, kExtent);
    EXPECT_TRUE(first == "A" || first == ".") << first;
    if (flushed >= Flushed::kTrim) EXPECT_EQ(first, ".") << "the flushed TRIM is undone";
    const std::string second = box.letters("a", kExtent, 4096);
    EXPECT_TRUE(flushed >= Flushed::kWrite ? second == "B" : only(second, ".B")) << second;
    EXPECT_EQ(box.letters("a", kExtent + 4096, kExtent - 4096), ".");
    const std::string b = box.letters("b", 0, kExtent);
    EXPECT_TRUE(flushed >= Flushed::kReuse ? b == "C" : only(b, ".C")) << b;
    EXPECT_EQ(box.letters("rest", 0, kExtent), ".");
  }
};

// Nobody flushes: the devices may know less than the store, but what they know must fit together.
struct ReusedThenStateLost : FlushedThenStateLost {
  rt::Task<> play(Box& box) override {
    EXPECT_TRUE(co_await box.write("a", kExtent, 4096, 'B'));
    EXPECT_TRUE(co_await box.trim("a", 0, kExtent));
    EXPECT_TRUE(co_await box.write("b", 0, kExtent, 'C'));  // where A was
    co_await rt::sleep_for(box.machine.control().clock(), 50 * rt::kMillisecond);
  }
};

TEST(Traces, F33_ARebuildNeverShowsAVolumeTheBytesOfTheNextOwner) {
  EXPECT_GT(cut_everywhere<ReusedThenStateLost>(Ending::kPower), 30u);
  EXPECT_GT(cut_everywhere<ReusedThenStateLost>(Ending::kKill), 30u);
}

TEST(Traces, F33_WhatWasFlushedIsKnownToTheDevicesAloneAfterACutAnywhere) {
  EXPECT_GT(cut_everywhere<FlushedThenStateLost>(Ending::kPower, 3), 30u);
  EXPECT_GT(cut_everywhere<FlushedThenStateLost>(Ending::kKill, 3), 30u);
  EXPECT_GT(cut_everywhere<FlushedThenStateLost>(Ending::kPowerInStore, 3), 4u);
}

// The same trace with the state directory still there: the map log may lag behind the store, never
// lead, so no plain crash makes a start refuse (cut_everywhere fails when it does).
struct FlushedThenStarted : FlushedThenStateLost {
  void recover(Box& box) override { box.start(); }
};

TEST(Traces, F33_NoPlainCrashMakesTheNextStartRefuse) {
  EXPECT_GT(cut_everywhere<FlushedThenStarted>(Ending::kPower, 3), 30u);
  EXPECT_GT(cut_everywhere<FlushedThenStarted>(Ending::kKill, 3), 30u);
  EXPECT_GT(cut_everywhere<FlushedThenStarted>(Ending::kPowerInStore, 3), 4u);
}

}  // namespace
}  // namespace duplex::simtest
