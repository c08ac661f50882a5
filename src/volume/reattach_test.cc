// A device that goes away and comes back without its cache, under a mirror: what the pool says of
// it (pool/backing.h, invariant 5) and what the volume makes of that (traces F7, F21 and F23). Two
// devices, two volumes on them, a pool as it is; disks that lose what was not flushed.
#include <gtest/gtest.h>

#include "pool/test_world.h"
#include "volume/own_leg_test_kit.h"

namespace duplex::volume {
namespace {

using pool::test::Rig;
using testing::WordStore;

constexpr uint64_t kBytes = kMiB;
constexpr MapId kBits{1}, kMissing{2};

class ReattachTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  ReattachTest() {
    EXPECT_TRUE(rig.start());
    for (const char* disk : {"/d1", "/d2"}) EXPECT_TRUE(rig.add(disk, false, 8 * kMiB));
    p = make(1, "d1");
    s = make(2, "d2");
    run(joined(*this));
  }
  ~ReattachTest() override { run(closed(*this)); }

  std::unique_ptr<VolumeImpl> make(uint16_t number, const char* device) {
    auto backing = rig.create(number, kBytes, false, device);
    EXPECT_TRUE(backing);
    return std::make_unique<VolumeImpl>(device, VolumeNumber(number), kBytes, rig.core(number),
                                        **backing, Epoch(1));
  }
  static rt::Task<bool> joined(ReattachTest& self) {
    co_await rt::hop(self.p->core());
    self.tracker.emplace(self.p->core(), self.store, kBytes);
    self.leg.emplace(*self.tracker, kBits, kMissing, *self.s, [](const Error&) {}, [] {});
    self.p->set_tracker(*self.tracker);
    self.tracker->add_map(kBits, MapKind::kCopyAway, ChangeMap(kBytes));
    self.tracker->add_map(kMissing, MapKind::kMissing, ChangeMap(kBytes));
    self.tracker->set_windows(kBits, &self.p->own_window(), &self.leg->window());
    self.tracker->set_windows(kMissing, &self.leg->window(), &self.p->own_window());
    self.tracker->add_debtor(*self.leg);
    self.p->add_leg(*self.leg);
    self.leg->set_mode(TargetLeg::Mode::kSend);
    co_await rt::hop(self.rig.world.control());
    co_return true;
  }
  static rt::Task<bool> closed(ReattachTest& self) {
    co_await rt::hop(self.p->core());
    co_await self.tracker->close();
    co_await rt::hop(self.rig.world.control());
    co_return true;
  }
  template <class T>
  T run(rt::Task<T> task) {
    return rig.world.run(std::move(task));
  }
  rt::Task<bool> left() {
    co_await rt::hop(p->core());
    leg->leave(Error(Code::kTimeout));
    co_await rt::hop(rig.world.control());
    co_return true;
  }
  rt::Task<Result<VolumeImpl::CopyStep>> brought_back() {
    co_await rt::hop(p->core());
    auto step = co_await p->restore_step(*leg, 0);
    co_await rt::hop(rig.world.control());
    co_return step;
  }
  rt::Task<Result<void>> written_with_fua(uint64_t offset, std::span<const std::byte> from) {
    co_await rt::hop(p->core());
    Result<void> done = co_await p->write(offset, from, true);
    co_await rt::hop(rig.world.control());
    co_return done;
  }

  std::span<std::byte> filled(int value) {
    buffers.push_back(rig.world.control().buffers().get(kBlockBytes));
    std::memset(buffers.back().data(), value, kBlockBytes);
    return buffers.back().span();
  }
  bool write(uint64_t offset, int value) {
    return run(p->forward_write(Epoch(1), offset, filled(value))).has_value();
  }
  Result<void> flush() { return run(p->forward_flush()); }
  int host_reads(uint64_t offset) {
    const std::span<std::byte> block = filled(0xee);
    EXPECT_TRUE(run(p->forward_read(offset, block)));
    return static_cast<int>(block[0]);
  }
  int own(uint64_t offset) { return static_cast<int>(*rig.read(1, offset)); }
  bool is_missing(uint64_t offset) { return leg->is_missing({offset, 1}); }
  bool has_bit(uint64_t offset) { return leg->bits().any({offset, 1}); }

  // The device goes, is seen to be gone, and comes back without what it had not flushed.
  void reattach(const std::string& name) {
    pool::test::TestDisk& disk = *rig.world.disks["/" + name];
    disk.gone = true;
    // Somebody has to notice.
    [[maybe_unused]] const auto noticed = rig.read(name == "d1" ? 1 : 2, 0);
    rig.world.settle(3 * rt::kSecond);
    ASSERT_EQ(rig.pool->device(name)->state, pool::DeviceState::kAbsent);
    disk.gone = false;
    disk.lose_cache(nullptr);
    disk.locked = false;
    rig.world.settle(3 * rt::kSecond);
    ASSERT_EQ(rig.pool->device(name)->state, pool::DeviceState::kOnline);
  }

  Rig rig{GetParam()};
  WordStore store;
  std::unique_ptr<VolumeImpl> p, s;
  std::optional<Tracker> tracker;
  std::optional<TargetLeg> leg;
  std::vector<rt::Buffer> buffers;
};

// Mutations: PoolImpl::attach() counts no loss; OwnDebtor::lost() does nothing; flush_own() returns
// what the flush said.
TEST_P(ReattachTest, WhatTheCacheTookIsMissingWhereTheTargetHoldsItAndTheFlushSucceeds) {
  ASSERT_TRUE(write(0, 1));
  ASSERT_TRUE(flush());
  ASSERT_TRUE(write(0, 2));
  ASSERT_TRUE(write(3 * kRegionBytes, 3));
  reattach("d1");
  EXPECT_TRUE(flush());
  EXPECT_TRUE(is_missing(0) && is_missing(3 * kRegionBytes));
  EXPECT_FALSE(is_missing(kRegionBytes));
  EXPECT_EQ(store.disk[kMissing.value()][0], 0b1001u) << "durable before the answer";
  EXPECT_EQ(own(0), 1);
  EXPECT_EQ(host_reads(0), 2);
  EXPECT_EQ(host_reads(3 * kRegionBytes), 3);
  EXPECT_FALSE(has_bit(0));
  EXPECT_EQ(leg->mode(), TargetLeg::Mode::kSend);
}

// And it comes back for good. Mutation: flush_all() does not write the missing regions back.
TEST_P(ReattachTest, WhatIsMissingComesBackAndSurvivesTheNextLoss) {
  ASSERT_TRUE(write(0, 2));
  reattach("d1");
  ASSERT_TRUE(flush());
  ASSERT_TRUE(is_missing(0));
  ASSERT_TRUE(run(brought_back()));
  EXPECT_EQ(own(0), 2);
  ASSERT_TRUE(flush());
  EXPECT_EQ(store.disk[kMissing.value()][0], 0u);
  reattach("d1");
  EXPECT_TRUE(flush());
  EXPECT_FALSE(is_missing(0));
  EXPECT_EQ(own(0), 2);
}

// It came back from the target into a cache, and that is lost as well. Mutation: own_lost() does
// not ask holds_lost().
TEST_P(ReattachTest, WhatCameBackIntoACacheThatIsLostIsMissingAgain) {
  ASSERT_TRUE(write(0, 2));
  reattach("d1");
  ASSERT_TRUE(flush());
  ASSERT_TRUE(run(brought_back()));
  ASSERT_FALSE(is_missing(0));
  reattach("d1");
  EXPECT_TRUE(flush());
  EXPECT_TRUE(is_missing(0));
  EXPECT_EQ(host_reads(0), 2);
}

// Written when the device was there again, before anybody flushed: it is in the window as well, and
// the flush that tells of the loss does not say which of the two it took.
TEST_P(ReattachTest, AWriteAfterTheReattachmentIsReadAtTheTargetToo) {
  ASSERT_TRUE(write(0, 2));
  reattach("d1");
  ASSERT_TRUE(write(kRegionBytes, 3));
  EXPECT_TRUE(flush());
  EXPECT_EQ(host_reads(0), 2);
  EXPECT_EQ(host_reads(kRegionBytes), 3);
  EXPECT_TRUE(is_missing(0) && is_missing(kRegionBytes));
}

// Nothing was owed: nothing is lost. Mutation: BackingImpl::flush() flushes devices that owe
// nothing, whatever they lost.
TEST_P(ReattachTest, AFlushedVolumeLosesNothing) {
  ASSERT_TRUE(write(0, 2));
  ASSERT_TRUE(flush());
  reattach("d1");
  EXPECT_TRUE(flush());
  EXPECT_FALSE(is_missing(0));
  EXPECT_EQ(own(0), 2);
}

// Nobody has it: told once, and in doubt on both sides. Mutation: own_lost() sets no bits.
TEST_P(ReattachTest, WhatNoTargetHoldsFailsOneFlushAndGetsABit) {
  ASSERT_TRUE(run(left()));
  ASSERT_TRUE(write(0, 2));
  reattach("d1");
  const Result<void> told = flush();
  ASSERT_FALSE(told);
  EXPECT_EQ(told.error().code(), Code::kFlushLost);
  EXPECT_TRUE(flush());
  EXPECT_TRUE(has_bit(0));
  EXPECT_FALSE(is_missing(0));
}

// Mutation: flush_since() flushes the own backing alone.
TEST_P(ReattachTest, AWriteWithFuaAfterTheReattachmentSucceedsWhereTheTargetHoldsAll) {
  ASSERT_TRUE(write(0, 2));
  reattach("d1");
  EXPECT_TRUE(run(written_with_fua(kRegionBytes, filled(3))));
  EXPECT_TRUE(is_missing(0));
  EXPECT_EQ(host_reads(0), 2);
  EXPECT_EQ(host_reads(kRegionBytes), 3);
}

// The other side: the target leaves with bits for its window. Mutation: TargetLeg::leave() loses no
// window.
TEST_P(ReattachTest, ATargetThatComesBackWithoutItsCacheLeavesAndGetsItsWindowAsBits) {
  ASSERT_TRUE(write(0, 1));
  ASSERT_TRUE(flush());
  ASSERT_TRUE(write(kRegionBytes, 3));
  reattach("d2");
  EXPECT_TRUE(flush()) << "the own backing has all of it";
  EXPECT_EQ(leg->mode(), TargetLeg::Mode::kMark);
  EXPECT_TRUE(has_bit(kRegionBytes));
  EXPECT_FALSE(has_bit(0));
}

INSTANTIATE_TEST_SUITE_P(Orders, ReattachTest, ::testing::Range<uint64_t>(0, 8));

}  // namespace
}  // namespace duplex::volume
