// Traces about extents and what hosts see of them: F15, F16, F19, F21 (table: scenarios_test.cc).
#include <gtest/gtest.h>

#include "nbd/server.h"
#include "nbd/test_client.h"
#include "sim/scenario.h"

namespace duplex::simtest {
namespace {

// Devices of about this size have a handful of extents.
constexpr uint64_t kSmallDisk = 4 * kMiB;

// Takes all but `left` extents of the pool for volume `name`.
void fill_pool(Box& box, const std::string& name, uint64_t left) {
  ASSERT_GT(box.free_extents(), left);
  box.add_volume(name, (box.free_extents() - left) * kExtent, true);
  ASSERT_EQ(box.free_extents(), left);
}

TEST(Traces, F15_TheRestOfANewExtentReadsAsZeroesAndNotAsWhatWasOnTheDisk) {
  Box box(1);
  box.add_disk("/dev/a", kSmallDisk);
  box.add_volume("a", 16 * kExtent);
  for (uint64_t extent = 0; extent < 16; ++extent) {
    ASSERT_TRUE(box.run(box.write("a", extent * kExtent + 8192, 512, 'A')));
  }
  EXPECT_EQ(box.letters("a", 0, 16 * kExtent), ".A");
  EXPECT_EQ(box.letters("a", 8192, 512), "A");
  EXPECT_EQ(box.letters("a", 8704, kExtent - 512), ".");
}

// A trims its extent, B is given it and writes. Whatever was durable when the power went, A shows
// its own bytes or zeroes, and B its own.
struct ExtentChangesHands : Trace {
  bool b_is_flushed = false;

  void prepare(Box& box) override {
    box.add_disk("/dev/a", kSmallDisk);
    box.add_volume("a", kExtent);
    box.add_volume("b", kExtent);
    ASSERT_TRUE(box.run(box.write("a", 0, kExtent, 'A')));
    fill_pool(box, "rest", 0);
    ASSERT_TRUE(box.run(box.flush("a")));
  }
  rt::Task<> play(Box& box) override {
    EXPECT_TRUE(co_await box.trim("a", 0, kExtent));
    EXPECT_TRUE(co_await box.write("b", 0, 4096, 'B'));
    EXPECT_TRUE(co_await box.flush("b"));
    b_is_flushed = true;
  }
  void check(Box& box) override {
    const std::string a = box.letters("a", 0, kExtent);
    EXPECT_TRUE(a == "A" || a == ".") << a;
    EXPECT_TRUE(only(box.letters("b", 0, 4096), b_is_flushed ? "B" : ".B"));
    EXPECT_EQ(box.letters("b", 4096, kExtent - 4096), ".");
    if (b_is_flushed) EXPECT_EQ(a, ".") << "there is one extent, and B has it";
  }
};

TEST(Traces, F15_AnExtentThatChangesHandsIsNeverSeenByBothAcrossAPowerCut) {
  EXPECT_GT(cut_everywhere<ExtentChangesHands>(Ending::kPower), 30u);
  EXPECT_GT(cut_everywhere<ExtentChangesHands>(Ending::kKill), 30u);
  EXPECT_GT(cut_everywhere<ExtentChangesHands>(Ending::kPowerInStore), 4u);
}

// A full volume shrinks to one extent and a half, and grows again.
struct ShrinkAndGrow : Trace {
  static constexpr uint64_t kLarge = 4 * kExtent;
  static constexpr uint64_t kSmall = kExtent + kExtent / 2;
  bool has_shrunk = false;

  void prepare(Box& box) override {
    box.add_disk("/dev/a", kSmallDisk);
    box.add_volume("a", kLarge);
    ASSERT_TRUE(box.run(box.write("a", 0, kLarge, 'A')));
    ASSERT_TRUE(box.run(box.flush("a")));
  }
  rt::Task<> play(Box& box) override {
    EXPECT_TRUE(co_await box.array->volumes().resize("a", kSmall, true));
    has_shrunk = true;
    EXPECT_TRUE(co_await box.array->volumes().resize("a", kLarge, false));
  }
  void check(Box& box) override {
    const uint64_t size = box.array->volumes().info("a")->size_bytes;
    EXPECT_TRUE(size == kLarge || size == kSmall) << size;
    if (size == kLarge && !has_shrunk) {
      EXPECT_EQ(box.letters("a", 0, kLarge), "A") << "a shrink that did not happen";
      return;
    }
    EXPECT_EQ(box.letters("a", 0, kSmall), "A") << "what stays is not touched";
    if (size == kSmall) ASSERT_TRUE(box.run(box.array->volumes().resize("a", kLarge, false)));
    EXPECT_EQ(box.letters("a", kSmall, kLarge - kSmall), ".") << "what is gone does not come back";
  }
};

TEST(Traces, F15_WhatWasBeyondAShrunkEndDoesNotComeBackAcrossAPowerCut) {
  EXPECT_GT(cut_everywhere<ShrinkAndGrow>(Ending::kPower), 20u);
  EXPECT_GT(cut_everywhere<ShrinkAndGrow>(Ending::kKill), 20u);
  EXPECT_GT(cut_everywhere<ShrinkAndGrow>(Ending::kPowerInStore), 4u);
}

TEST(Traces, F15_AReadUnderTheOldMapNeverSeesTheNewOwner) {
  int slow_reads = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Box box(seed);
    box.add_disk("/dev/a", kSmallDisk);
    box.add_volume("a", kExtent);
    box.add_volume("b", kExtent);
    ASSERT_TRUE(box.run(box.write("a", 0, kExtent, 'A')));
    fill_pool(box, "rest", 0);
    box.disk("/dev/a").faults.slow = 1;  // this read takes up to 5 s
    const auto reading = box.simulation.start(box.machine.control(), box.read("a", 0, kExtent));
    box.pass(rt::kMillisecond);
    if (reading->done) continue;  // answered inside the call, as now and then on a real disk
    ++slow_reads;
    box.disk("/dev/a").faults.slow = 0;
    ASSERT_TRUE(box.run(box.trim("a", 0, kExtent)));
    static_cast<void>(box.run(box.write("b", 0, kExtent, 'B')));  // gives up waiting after 2 s
    ASSERT_TRUE(box.simulation.finish(*reading));
    EXPECT_EQ(*reading->value, "A");
    ASSERT_TRUE(box.run(box.write("b", 0, kExtent, 'B')));
    EXPECT_EQ(box.letters("b", 0, kExtent), "B");
  }
  EXPECT_GT(slow_reads, 10);
}

TEST(Traces, F16_ATrimMeansTheSameOnEveryExtentSizeAndOnAThickVolume) {
  struct Kind {
    uint64_t extent_bytes;
    bool thick;
  };
  constexpr uint64_t kRegions = 8;
  for (const Kind kind :
       {Kind{64 * kKiB, false}, {256 * kKiB, false}, {kMiB, false}, {kMiB, true}}) {
    SCOPED_TRACE(testing::Message() << kind.extent_bytes << (kind.thick ? " thick" : ""));
    Box box(2);
    box.add_disk("/dev/a", 16 * kMiB, kind.extent_bytes);
    box.add_volume("a", 4 * kMiB, kind.thick);
    ASSERT_TRUE(box.run(box.write("a", 0, kRegions * kRegionBytes, 'A')));
    // The regions that lie inside, whole, are zeroes from here on, the rest is as it was.
    ASSERT_TRUE(box.run(box.trim("a", kRegionBytes - 512, 2 * kRegionBytes + 1024)));
    ASSERT_TRUE(box.run(box.trim("a", 5 * kRegionBytes + 512, 2 * kRegionBytes - 512)));
    ASSERT_TRUE(box.run(box.flush("a")));
    for (const bool after_power_cut : {false, true}) {
      std::string regions;
      for (uint64_t i = 0; i < kRegions; ++i)
        regions += box.letters("a", i * kRegionBytes, kRegionBytes);
      EXPECT_EQ(regions, "A..AAA.A");
      if (after_power_cut) continue;
      box.crash(Ending::kPower);
      box.start();
    }
  }
}

// A client of the front door that announces 64 KiB and sends some of it, then waits.
rt::Task<> trickle(rt::Core& core, bool& is_sent, bool& is_closed) {
  auto stream = co_await core.net().connect(*rt::Address::parse("unix:/nbd"));
  if (!stream) co_return;
  const nbd::Bytes payload(kExtent / 2, std::byte('T'));
  nbd::Bytes bytes = nbd::join({nbd::client_flags(), nbd::option(7, nbd::go_payload("a")),
                                nbd::request(1, 0, kExtent, 0, 7, payload)});
  iovec part{bytes.data(), bytes.size()};
  is_sent = co_await (*stream)->send(std::span(&part, 1)) == 0;
  nbd::Bytes heard(4096);
  while (co_await (*stream)->recv(heard) > 0) {
  }
  is_closed = true;
}

rt::Task<bool> listen(nbd::Server& server) {
  co_return (co_await server.listen(*rt::Address::parse("unix:/nbd"), false)).has_value();
}

TEST(Traces, F19_AWriteWhosePayloadTricklesInHoldsNobodyUp) {
  Box box(3);
  sim::Machine& outside = box.simulation.add_machine("outside", {});
  box.add_disk("/dev/a", 16 * kMiB);
  box.add_volume("a", kMiB);
  nbd::Server server(box.machine, box.array->volumes());
  ASSERT_TRUE(box.run(listen(server)));
  bool is_sent = false;
  bool is_closed = false;
  const auto client =
      box.simulation.start(outside.control(), trickle(outside.control(), is_sent, is_closed));
  box.pass(rt::kSecond);
  ASSERT_TRUE(is_sent);
  // Another host writes the same place, and the gate is closed and opened again (a shrink).
  const rt::Micros before = box.simulation.now();
  ASSERT_TRUE(box.run(box.write("a", 0, kExtent, 'A')));
  ASSERT_TRUE(box.run(box.array->volumes().resize("a", kMiB / 2, true)));
  EXPECT_LT(box.simulation.now() - before, rt::kSecond);
  EXPECT_EQ(box.letters("a", 0, kExtent), "A") << "half a payload is no write";
  ASSERT_FALSE(is_closed);
  ASSERT_TRUE(box.simulation.run(box.machine.control(), server.stop()));
  ASSERT_TRUE(box.simulation.finish(*client));
  EXPECT_EQ(box.letters("a", 0, kExtent), "A");
}

// The device goes while three volumes have written to it: `flushed` has flushed since, the other
// two have not. It comes back without what was in its cache.
TEST(Traces, F21_AfterADeviceCameBackTheNextFlushOfWhoeverMayHaveLostDataFailsOnce) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    Box box(seed);
    box.add_disk("/dev/a", 16 * kMiB);
    for (const char* name : {"one", "two", "flushed"}) {
      box.add_volume(name, 4 * kExtent);
      ASSERT_TRUE(box.run(box.write(name, 0, kExtent, 'A')));
      ASSERT_TRUE(box.run(box.flush(name)));
    }
    ASSERT_TRUE(box.run(box.write("one", 0, kExtent, 'B')));
    ASSERT_TRUE(box.run(box.write("two", 0, 4096, 'B')));
    sim::DiskFile& disk = box.disk("/dev/a");
    auto dice = box.simulation.dice(1);
    disk.faults.gone = true;
    EXPECT_EQ(box.letters("one", 0, kExtent), "error");  // so it is noticed
    disk.lose_cache(dice);
    box.pass(2 * rt::kSecond);
    EXPECT_EQ(box.device("/dev/a").state, pool::DeviceState::kAbsent);
    disk.faults.gone = false;
    box.pass(5 * rt::kSecond);
    ASSERT_EQ(box.device("/dev/a").state, pool::DeviceState::kOnline);
    EXPECT_TRUE(box.run(box.flush("flushed"))) << "nothing of it was at risk";
    for (const char* name : {"one", "two"}) {
      const auto told = box.run(box.flush(name));
      ASSERT_FALSE(told) << "a flush that succeeds here is a lie";
      EXPECT_EQ(told.error().code(), Code::kFlushLost);
      EXPECT_TRUE(box.run(box.flush(name))) << "once";
      EXPECT_TRUE(only(box.letters(name, 0, kExtent), "AB"));
    }
    EXPECT_EQ(box.letters("flushed", 0, kExtent), "A");
  }
}

}  // namespace
}  // namespace duplex::simtest
