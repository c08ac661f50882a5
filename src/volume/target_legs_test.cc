// Writes that go to targets as well: where they go in each mode, what a copy does beside them, and
// what is known of a target that failed. Source and target live on two cores.
#include <gtest/gtest.h>

#include <deque>
#include <random>

#include "volume/target_leg.h"
#include "volume/volume_impl.h"
#include "volume/volume_test_kit.h"

namespace duplex::volume {
namespace {

using Mode = TargetLeg::Mode;
using testing::FakeBacking;
using testing::TestWorld;

constexpr uint64_t kExtent = 64 * kKiB;
constexpr uint64_t kSize = 64 * kExtent;
constexpr MapId kBits{1}, kMissing{2};

// Everything is durable at once.
class NoStore final : public MarkStore {
 public:
  rt::Task<Result<void>> mark(std::span<const HotExtent> /*extents*/) override {
    co_return Result<void>();
  }
  rt::Task<Result<void>> cool(HotExtent /*e*/, std::vector<format::MapWord> /*w*/) override {
    co_return Result<void>();
  }
  rt::Task<Result<void>> write_words(MapId /*m*/, std::vector<ChangeMap::Word> /*w*/) override {
    co_return Result<void>();
  }
};

class TargetLegsTest : public ::testing::Test {
 protected:
  TargetLegsTest() {
    core().inside([&] {
      tracker.add_map(kBits, MapKind::kCopyAway, ChangeMap(kSize));
      tracker.add_map(kMissing, MapKind::kMissing, ChangeMap(kSize));
      tracker.set_windows(kBits, &volume.own_window(), &leg.window());
      tracker.set_windows(kMissing, nullptr, &volume.returned_window());
      tracker.add_debtor(leg);
      volume.set_tracker(tracker);
      volume.add_leg(leg);
    });
  }
  ~TargetLegsTest() override { finish(testing::ended(tracker.close())); }
  testing::TestCore& core() { return world.reactor(0); }
  template <class T>
  T finish(rt::Task<T> task) {
    return world.finish(core(), std::move(task));
  }
  std::span<std::byte> filled(size_t bytes, int value) {
    buffers.push_back(core().buffers().get(bytes));
    std::memset(buffers.back().data(), value, bytes);
    return buffers.back().span();
  }
  Result<void> write(uint64_t offset, size_t bytes, int value) {
    return finish(volume.write(offset, filled(bytes, value), false));
  }
  int byte_at(VolumeImpl& of, testing::TestCore& on, uint64_t offset) {
    std::byte value{};
    EXPECT_TRUE(world.finish(on, of.read(offset, {&value, 1})));
    return static_cast<int>(value);
  }
  int here(uint64_t offset) { return byte_at(volume, core(), offset); }
  int there(uint64_t offset) { return byte_at(target, world.reactor(1), offset); }
  bool has_bit(uint64_t offset) { return leg.bits().any({offset, 1}); }
  void expect_equal() {
    for (uint64_t at = 0; at < kSize; at += kBlockBytes) ASSERT_EQ(here(at), there(at)) << at;
  }
  void mode(Mode to) {
    core().inside([&] { leg.set_mode(to); });
  }
  // All of a copy, one step after the other.
  rt::Task<bool> copy_all() {
    for (uint64_t from = 0;;) {
      const auto step = co_await volume.copy_step(leg, from, Epoch(1));
      if (!step) co_return false;
      if (step->is_end) co_return true;
      from = step->next;
    }
  }

  TestWorld world{2};
  NoStore store;
  FakeBacking backing{kSize, kExtent}, target_backing{kSize, kExtent};
  std::vector<std::string> lefts;
  Tracker tracker{world.reactor(0), store, kSize};
  VolumeImpl volume{"p", VolumeNumber(1), kSize, world.reactor(0), backing, Epoch(1)};
  VolumeImpl target{"s", VolumeNumber(2), kSize, world.reactor(1), target_backing, Epoch(1)};
  TargetLeg leg{tracker,
                kBits,
                kMissing,
                target,
                [this](const Error& why) { lefts.emplace_back(why.message()); },
                [] {}};
  std::vector<rt::Buffer> buffers;
};

TEST_F(TargetLegsTest, AWriteInSyncIsOnBothSidesAndHasNoBit) {
  mode(Mode::kSend);
  ASSERT_TRUE(write(0, 8192, 1));
  ASSERT_TRUE(write(100, 1, 2));
  EXPECT_TRUE(leg.bits().empty());
  EXPECT_EQ(there(100), 2);
  EXPECT_TRUE(leg.window().owes());
  ASSERT_TRUE(finish(volume.flush()));
  EXPECT_EQ(target_backing.count("flush"), 1u);
  EXPECT_FALSE(leg.window().owes());
  ASSERT_TRUE(finish(volume.zero({0, kExtent}, {.fua = true})));
  EXPECT_EQ(target_backing.count("flush"), 2u);
  expect_equal();
}

TEST_F(TargetLegsTest, AWriteToASplitTargetStaysHereAndSetsBits) {
  ASSERT_TRUE(write(kExtent, 8192, 1));
  ASSERT_TRUE(finish(volume.zero({4 * kExtent, 4096}, {})));
  EXPECT_TRUE(has_bit(kExtent));
  EXPECT_TRUE(has_bit(4 * kExtent));
  EXPECT_EQ(leg.bits().count(), 2u);
  EXPECT_TRUE(target_backing.log.empty());
  ASSERT_TRUE(finish(volume.flush()));
  EXPECT_TRUE(target_backing.log.empty());
}

TEST_F(TargetLegsTest, WhileACopyRunsAWriteGoesOnlyWhereNoBitIs) {
  core().inside([&] { tracker.set(kBits, {kExtent, kExtent}); });
  mode(Mode::kSendWhereClear);
  ASSERT_TRUE(write(0, 3 * kExtent, 5));
  EXPECT_EQ(there(0), 5);
  EXPECT_EQ(there(kExtent), 0);
  EXPECT_EQ(there(2 * kExtent), 5);
  EXPECT_EQ(leg.bits().count(), 1u);
  ASSERT_TRUE(finish(copy_all()));
  EXPECT_TRUE(leg.bits().empty());
  expect_equal();
}

TEST_F(TargetLegsTest, ACopyMovesWhatHasBitsAndLeavesHolesHoles) {
  ASSERT_TRUE(write(0, kExtent, 1));
  ASSERT_TRUE(write(2 * kExtent, 4096, 2));
  ASSERT_TRUE(finish(volume.zero({8 * kExtent, kExtent}, {})));
  core().inside([&] { tracker.set(kBits, {10 * kExtent, 20 * kExtent}); });
  mode(Mode::kSendWhereClear);
  target_backing.log.clear();
  ASSERT_TRUE(finish(copy_all()));
  EXPECT_EQ(target_backing.count("write"), 2u) << "two regions hold data";
  EXPECT_EQ(target_backing.allocated_bytes(), 2 * kExtent);
  expect_equal();
}

// Mutation: lost() does nothing when the leg has left.
TEST_F(TargetLegsTest, AFlushThatFailsAfterItsLegHasLeftIsALossOfItsOwn) {
  mode(Mode::kSend);
  ASSERT_TRUE(write(0, 4096, 1));
  target_backing.hold_reads = true;  // flushes wait as reads do
  target_backing.fail_flush = {Code::kFlushLost};
  const auto flushed = world.start(core(), volume.flush());
  world.run();
  core().inside([&] { leg.leave(Error(Code::kTimeout)); });
  world.reactor(1).inside([&] { target_backing.release(); });
  world.run();
  ASSERT_TRUE(flushed->has_value() && **flushed);
  EXPECT_EQ(lefts.size(), 1u);
  EXPECT_TRUE(has_bit(0));
}

// Mutation: a failed part sets no bits.
TEST_F(TargetLegsTest, ATargetThatFailsAWriteLeavesAndTheWriteSucceeds) {
  mode(Mode::kSend);
  ASSERT_TRUE(write(0, 4096, 1));
  target_backing.fail_write = Code::kMediumWrite;
  ASSERT_TRUE(write(4 * kExtent, 4096, 2));
  EXPECT_EQ(leg.mode(), Mode::kMark);
  EXPECT_EQ(lefts.size(), 1u);
  EXPECT_TRUE(has_bit(4 * kExtent));
  EXPECT_TRUE(has_bit(0)) << "was never flushed there";
  ASSERT_TRUE(write(8 * kExtent, 4096, 3));
  EXPECT_TRUE(has_bit(8 * kExtent));
  EXPECT_EQ(lefts.size(), 1u);
}

TEST_F(TargetLegsTest, ATargetThatFailsAFlushLeavesWithItsWindowAndTheFlushSucceeds) {
  mode(Mode::kSend);
  ASSERT_TRUE(write(0, 4096, 1));
  ASSERT_TRUE(finish(volume.flush()));
  ASSERT_TRUE(write(kExtent, 4096, 1));
  target_backing.fail_flush = {Code::kFlushLost};
  ASSERT_TRUE(finish(volume.flush()));
  EXPECT_EQ(leg.mode(), Mode::kMark);
  EXPECT_FALSE(has_bit(0)) << "an earlier flush covered it";
  EXPECT_TRUE(has_bit(kExtent));
}

// Trace F31. The target has one of two regions. Mutation: refused_by_own() does nothing.
TEST_F(TargetLegsTest, AWriteTheSourceRefusesEndsTheEqualityThatTheTargetTook) {
  ASSERT_TRUE(finish(volume.zero({0, 2 * kExtent}, {.no_hole = true})));
  mode(Mode::kSendWhereClear);
  ASSERT_TRUE(finish(copy_all()));
  core().inside([&] { tracker.set(kBits, {kExtent, kExtent}); });
  backing.fail_write = Code::kMediumWrite;
  EXPECT_EQ(write(kExtent - 4096, 8192, 1).error().code(), Code::kMediumWrite);
  EXPECT_EQ(there(kExtent - 1), 1);
  EXPECT_EQ(leg.mode(), Mode::kMark);
  EXPECT_TRUE(has_bit(0));
}

// Targets with missing regions are flushed without a session, too, and FLUSH passes no gate.
// Mutation: flush() counts as a write.
TEST_F(TargetLegsTest, AFlushFromBeforeASessionMayEndInIt) {
  const auto flushed = world.start(core(), leg.flush());
  EXPECT_FALSE(flushed->has_value());
  mode(Mode::kSend);
  world.run();
  EXPECT_TRUE(flushed->has_value());
}

// Trace F25. The write that hung lands after the leg has left; drained() waits for it.
TEST_F(TargetLegsTest, ALegThatHasLeftIsDrainedWhenTheLastWriteHasLanded) {
  mode(Mode::kSend);
  ASSERT_TRUE(write(0, 4096, 1));
  target_backing.hold = true;
  const auto written = world.start(core(), volume.write(0, filled(4096, 2), false));
  world.run();
  core().inside([&] { leg.leave(Error(Code::kTimeout)); });
  const auto drained = world.start(core(), testing::ended(leg.drained()));
  world.run();
  EXPECT_FALSE(drained->has_value());
  EXPECT_FALSE(written->has_value()) << "its range lock stays until the target has answered";
  world.reactor(1).inside([&] { target_backing.release(); });
  world.run();
  EXPECT_TRUE(drained->has_value());
  ASSERT_TRUE(written->has_value());
  EXPECT_TRUE(**written);
  EXPECT_TRUE(has_bit(0));
}

// The image of a cut is exactly the writes that passed the gate before it (trace F1), whatever is
// still on its way. Mutation: admit() does not look at the cut.
TEST_F(TargetLegsTest, ACutLeavesOldWritesOnBothSidesAndNewOnesHere) {
  mode(Mode::kSend);
  ASSERT_TRUE(write(0, kExtent, 1));
  target_backing.hold = true;
  const auto old = world.start(core(), volume.write(0, filled(4096, 2), false));
  world.run();
  core().inside([&] {
    leg.arm(Epoch(2));
    const Gate::Closer closer = volume.gate().close();
    volume.gate().advance(Epoch(2));
  });
  const auto fresh = world.start(core(), volume.write(8192, filled(4096, 3), false));
  const auto over = world.start(core(), volume.write(0, filled(4096, 4), false));
  world.run();
  EXPECT_TRUE(fresh->has_value()) << "a new write does not wait for the target";
  EXPECT_FALSE(over->has_value()) << "it waits for the older one on the same bytes";
  world.reactor(1).inside([&] { target_backing.release(); });
  world.run();
  ASSERT_TRUE(old->has_value() && over->has_value());
  EXPECT_EQ(there(0), 2);
  EXPECT_EQ(there(8192), 1);
  EXPECT_EQ(here(0), 4);
  EXPECT_EQ(here(8192), 3);
  core().inside([&] {
    leg.disarm();
    leg.set_mode(Mode::kMark);
  });
  EXPECT_EQ(leg.bits().count(), 1u);
}

// In a cascade a frame of before the cut may reach a middle volume after one of behind it (traces
// F1, F2): the frame decides. Mutation: next_part() looks at bits in kSend as well.
TEST_F(TargetLegsTest, AnOldFrameGoesToTheTargetThoughANewOneHasMarkedItsRegion) {
  mode(Mode::kSend);
  core().inside([&] { leg.arm(Epoch(2)); });
  ASSERT_TRUE(finish(volume.forward_write(Epoch(2), 0, filled(4096, 3))));
  ASSERT_TRUE(finish(volume.forward_write(Epoch(1), 4096, filled(4096, 2))));
  EXPECT_EQ(there(0), 0);
  EXPECT_EQ(there(4096), 2);
  EXPECT_EQ(leg.bits().count(), 1u);
}

// On the source's own core the first target may have everything before the second one starts.
// Mutation: LegJoin::begin() does not reset what an earlier leg has set.
TEST_F(TargetLegsTest, AWriteWaitsForTheSecondTargetThoughTheFirstHadItAtOnce) {
  FakeBacking quick_backing{kSize, kExtent}, late_backing{kSize, kExtent};
  VolumeImpl quick{"q", VolumeNumber(3), kSize, core(), quick_backing, Epoch(1)};
  VolumeImpl late{"l", VolumeNumber(4), kSize, core(), late_backing, Epoch(1)};
  std::deque<TargetLeg> legs;
  uint32_t map = 10;
  for (VolumeImpl* to : {&quick, &late}) {
    const MapId bits(map++), missing(map++);
    core().inside([&] {
      tracker.add_map(bits, MapKind::kCopyAway, ChangeMap(kSize));
      tracker.add_map(missing, MapKind::kMissing, ChangeMap(kSize));
      TargetLeg& one = legs.emplace_back(tracker, bits, missing, *to, [](const Error&) {}, [] {});
      tracker.set_windows(bits, &volume.own_window(), &one.window());
      tracker.set_windows(missing, nullptr, &volume.own_window());
      tracker.add_debtor(one);
      volume.add_leg(one);
      one.set_mode(Mode::kSend);
    });
  }
  ASSERT_TRUE(write(0, 4096, 1));
  late_backing.hold = true;
  const auto written = world.start(core(), volume.write(0, filled(4096, 2), false));
  const auto zeroed = world.start(core(), volume.zero({kExtent, kExtent}, {}));
  world.run();
  EXPECT_EQ(byte_at(quick, core(), 0), 2);
  EXPECT_FALSE(written->has_value()) << "a newer write could overtake it at the second target";
  EXPECT_FALSE(zeroed->has_value());
  core().inside([&] { late_backing.release(); });
  world.run();
  ASSERT_TRUE(written->has_value() && zeroed->has_value());
  EXPECT_EQ(byte_at(late, core(), 0), 2);
  core().inside([&] {
    for (TargetLeg& one : legs) one.set_mode(Mode::kMark);
  });
}

// Writers of random ranges, a copy that starts and is broken off at random, targets that fail: as
// long as nothing is on its way, what differs has a bit.
TEST_F(TargetLegsTest, WhateverDiffersHasABit) {
  std::mt19937_64 random(7);
  backing.slow = target_backing.slow = true;
  for (int round = 0; round < 300; ++round) {
    if (leg.mode() == Mode::kMark && random() % 2 == 0) mode(Mode::kSendWhereClear);
    std::vector<std::shared_ptr<std::optional<Result<void>>>> writes;
    for (int n = 0; n < 6; ++n) {
      const uint64_t offset = random() % (kSize - 3 * kExtent) / 512 * 512;
      const size_t bytes = (1 + random() % (2 * kExtent / 512)) * 512;
      const int value = static_cast<int>(random() % 255);
      if (random() % 5 == 0) {
        writes.push_back(world.start(core(), volume.zero({offset, bytes}, {})));
      } else {
        writes.push_back(world.start(core(), volume.write(offset, filled(bytes, value), false)));
      }
    }
    if (leg.mode() == Mode::kSendWhereClear) world.start(core(), copy_all());
    if (random() % 8 == 0) target_backing.fail_write = Code::kMediumWrite;
    if (random() % 8 == 0) core().inside([&] { leg.leave(Error(Code::kTimeout)); });
    world.run();
    target_backing.fail_write.reset();
    for (const auto& written : writes) ASSERT_TRUE(written->has_value() && **written);
    buffers.clear();
    if (leg.mode() == Mode::kSendWhereClear && leg.bits().empty()) mode(Mode::kSend);
    for (uint64_t at = 0; at < kSize; at += kBlockBytes) {
      if (!has_bit(at)) ASSERT_EQ(here(at), there(at)) << "round " << round << " at " << at;
    }
  }
}

}  // namespace
}  // namespace duplex::volume
