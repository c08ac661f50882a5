// A region the own backing cannot read: who answers for it, who does not, and how it is repaired.
#include "volume/own_leg_test_kit.h"

namespace duplex::volume {
namespace {

using namespace testing;

class ReadRepairTest : public OwnLegTest {
 protected:
  static constexpr ByteRange kBad{4096, 4096};  // in region 0

  // Both sides hold 1 there, in sync, and the second block here cannot be read.
  void begin_bad() {
    begin();
    backing.unreadable = kBad;
  }
  std::optional<Code> read_error(uint64_t offset) {
    int value = 0;
    const Result<void> done = read(offset, value);
    if (done) return std::nullopt;
    return done.error().code();
  }
  uint64_t repaired() { return volume.stats().repaired; }
  // Nobody's write: the volume never saw it, nothing is hot and no window owes it.
  void put_cold(uint64_t offset, uint64_t bytes, int value) {
    for (FakeBacking* of : {&backing, &one.backing}) {
      ASSERT_TRUE(finish(of->allocate({offset, bytes})));
      ASSERT_TRUE(finish(of->write(offset, filled(bytes, value))));
    }
  }
};

// Mutations: read() does not ask rescue(); start_repair() starts nothing.
TEST_F(ReadRepairTest, ATargetAnswersForWhatCannotBeReadHereAndItIsWrittenHereAgain) {
  begin_bad();
  const size_t writes = one.backing.count("write");
  EXPECT_EQ(here(4096 + 5), 1);
  EXPECT_EQ(repaired(), 1u);
  EXPECT_EQ(volume.stats().errors, 0u);
  EXPECT_TRUE(backing.unreadable.empty());
  EXPECT_EQ(byte_at(backing, 4096), 1);
  EXPECT_EQ(one.backing.count("write"), writes) << "what is repaired goes to nobody";
  EXPECT_FALSE(has_bit(0));
  EXPECT_FALSE(is_missing(0));
  const size_t reads = one.backing.count("read");
  EXPECT_EQ(here(4096), 1);
  EXPECT_EQ(one.backing.count("read"), reads) << "it is read here again";
}

// Whole blocks in aligned memory take another way. Mutation: read() asks rescue() for parts alone.
TEST_F(ReadRepairTest, AWholeReadIsAnsweredInFull) {
  begin_bad();
  const rt::Buffer bytes = core().buffers().get(4 * kExtent);
  ASSERT_TRUE(finish(volume.read(0, bytes.span())));
  EXPECT_TRUE(std::ranges::all_of(bytes.span(), [](std::byte b) { return b == std::byte{1}; }));
  EXPECT_EQ(repaired(), 1u) << "what can be read is not written again";
}

// Mutation: write_bounced() reads with kNever.
TEST_F(ReadRepairTest, ABlockIsCompletedFromTheTarget) {
  begin_bad();
  ASSERT_TRUE(write(4096 + 100, 10, 3));
  EXPECT_EQ(here(4096 + 99), 1);
  EXPECT_EQ(here(4096 + 100), 3);
  EXPECT_EQ(byte_at(one.backing, 4096 + 99), 1);
}

// Mutation: forward_read() reads with kNever.
TEST_F(ReadRepairTest, AMirrorAboveIsAnsweredToo) {
  begin_bad();
  const rt::Buffer block = core().buffers().get(kBlockBytes);
  ASSERT_TRUE(finish(volume.forward_read(4096, block.span())));
  EXPECT_EQ(block.span()[0], std::byte{1});
}

// Mutation: copy_step() reads with kNever.
TEST_F(ReadRepairTest, ACopyToAnotherTargetReadsTheOneThatHoldsTheRegion) {
  begin_bad();
  core().inside([&] {
    join(two, kBits2, kMissing2);
    tracker.set(kBits2, {0, kExtent});
    two.leg.set_mode(Mode::kSendWhereClear);
  });
  const auto step = finish(volume.copy_step(two.leg, 0, Epoch(1)));
  ASSERT_TRUE(step);
  EXPECT_EQ(byte_at(two.backing, 4096), 1);
  EXPECT_EQ(two.backing.count("read"), 1u) << "by this test alone";
}

// Mutation: holds() does not ask is_copying().
TEST_F(ReadRepairTest, ACopyNeverReadsTheTargetItFills) {
  begin_bad();
  leave(one);
  core().inside([&] { tracker.set(kBits, {0, kExtent}); });
  mode(Mode::kSendWhereClear);
  const size_t reads = one.backing.count("read");
  const auto step = finish(volume.copy_step(one.leg, 0, Epoch(1)));
  ASSERT_FALSE(step);
  EXPECT_EQ(step.error().code(), Code::kMediumRead);
  EXPECT_EQ(one.backing.count("read"), reads);
  EXPECT_TRUE(has_bit(0));
  EXPECT_EQ(repaired(), 0u);
}

// Mutation: serves() does not look at the bits (holds()).
TEST_F(ReadRepairTest, NobodyAnswersForARegionWithABitOrAtALegThatHasLeft) {
  begin_bad();
  const size_t reads = one.backing.count("read");
  leave(one);
  EXPECT_EQ(read_error(4096), Code::kMediumRead);
  core().inside([&] { tracker.set(kBits, {0, kExtent}); });
  mode(Mode::kSendWhereClear);
  EXPECT_EQ(read_error(4096), Code::kMediumRead);
  EXPECT_EQ(one.backing.count("read"), reads);
  EXPECT_EQ(repaired(), 0u);
  EXPECT_EQ(volume.stats().errors, 2u);
}

// A copy that is under way: what has no bit is answered for. Mutation: serves() wants kSend.
TEST_F(ReadRepairTest, ATargetBeingCopiedAnswersWhereItHasNoBit) {
  begin_bad();
  leave(one);
  core().inside([&] { tracker.set(kBits, {kExtent, kExtent}); });
  mode(Mode::kSendWhereClear);
  EXPECT_EQ(here(4096), 1);
  EXPECT_EQ(repaired(), 1u);
}

// Mutations: rescue() asks for serves_any() alone; it flushes nobody.
TEST_F(ReadRepairTest, ATargetThatWasCopiedToLatelyAnswersWhenItHasFlushed) {
  begin_bad();
  leave(one);
  backing.unreadable = {0, 0};
  core().inside([&] { tracker.set(kBits, {0, kExtent}); });
  mode(Mode::kSendWhereClear);
  ASSERT_TRUE(finish(volume.copy_step(one.leg, 0, Epoch(1))));
  backing.unreadable = kBad;
  EXPECT_EQ(here(4096), 1);
  EXPECT_EQ(repaired(), 1u);
  EXPECT_FALSE(one.leg.owes({0, kExtent}));
}

// Its cache is gone, and nobody knows yet: what is here and cannot be read just now is newer.
// Mutation: rescue() flushes nobody.
TEST_F(ReadRepairTest, ATargetThatHasLostItsCacheAnswersForNothingAndRepairsNothing) {
  begin();
  ASSERT_TRUE(write(4096, 4096, 2));
  ASSERT_TRUE(finish(one.backing.write(4096, filled(4096, 1))));
  one.backing.fail_flush = {Code::kFlushLost};
  backing.unreadable = kBad;
  EXPECT_EQ(read_error(4096), Code::kMediumRead);
  EXPECT_EQ(repaired(), 0u);
  EXPECT_TRUE(has_bit(4096));
  backing.unreadable = {0, 0};
  EXPECT_EQ(here(4096), 2);
}

// Mutation: serves() does not look at the cut.
TEST_F(ReadRepairTest, AnArmedLegNeitherAnswersNorRepairs) {
  begin_bad();
  const size_t reads = one.backing.count("read");
  core().inside([&] { one.leg.arm(Epoch(9)); });
  EXPECT_EQ(read_error(4096), Code::kMediumRead);
  EXPECT_EQ(one.backing.count("read"), reads);
  EXPECT_EQ(repaired(), 0u);
  core().inside([&] { one.leg.disarm(); });
  EXPECT_EQ(here(4096), 1);
}

// What was read may come from a host of the target by then. Mutation: rescue_part() does not ask
// the leg again.
TEST_F(ReadRepairTest, WhatALegReadBeforeItStoppedIsThrownAway) {
  begin_bad();
  one.backing.hold_reads = true;
  const rt::Buffer block = core().buffers().get(kBlockBytes);
  const auto done = world.start(core(), volume.read(4096, block.span()));
  world.run();
  ASSERT_FALSE(done->has_value());
  leave(one);
  world.reactor(1).inside([&] { one.backing.release(); });
  world.run();
  ASSERT_TRUE(done->has_value());
  ASSERT_FALSE(**done);
  EXPECT_EQ((**done).error().code(), Code::kMediumRead);
}

// The same between the answer and the repair. Mutation: repair_region() does not ask the leg again
// after its read.
TEST_F(ReadRepairTest, ALegThatStopsUnderARepairRepairsNothing) {
  begin_bad();
  const size_t writes = backing.count("write"), reads = one.backing.count("read");
  const rt::Buffer block = core().buffers().get(kBlockBytes);
  const auto done = world.start(core(), volume.read(4096, block.span()));
  while (one.backing.count("read") < reads + 2) {
    ASSERT_TRUE(core().step() || world.reactor(1).step()) << "nothing is being repaired";
  }
  ASSERT_TRUE(done->has_value() && **done);
  leave(one);
  world.run();
  EXPECT_EQ(backing.count("write"), writes);
  EXPECT_EQ(repaired(), 0u);
}

// Mutation: rescuer() ignores `tried`.
TEST_F(ReadRepairTest, ATargetThatCannotBeReadEitherLeavesItToTheNext) {
  begin_bad();
  core().inside([&] {
    join(two, kBits2, kMissing2);
    two.leg.set_mode(Mode::kSend);
  });
  ASSERT_TRUE(write(0, kExtent, 2));
  backing.unreadable = kBad;
  one.backing.fail_read = Code::kMediumRead;
  EXPECT_EQ(here(4096), 2);
  two.backing.fail_read = Code::kMediumRead;
  backing.unreadable = kBad;
  EXPECT_EQ(read_error(4096), Code::kMediumRead);
  EXPECT_EQ(one.lefts + two.lefts, 0);
}

// One reader would see the new byte at the target, the next the old one here. Mutation: rescue()
// takes no lock.
TEST_F(ReadRepairTest, ATargetAnswersOnlyWhenTheWritesUnderWayHaveEnded) {
  begin();
  backing.unreadable = {8192, 4096};
  backing.hold = true;
  const auto written = start_write(0, 4096, 2);
  ASSERT_FALSE(written->has_value());
  const rt::Buffer blocks = core().buffers().get(kExtent);
  const auto done = world.start(core(), volume.read(0, blocks.span()));
  world.run();
  EXPECT_FALSE(done->has_value());
  core().inside([&] { backing.release(); });
  world.run();
  ASSERT_TRUE(done->has_value() && **done && written->has_value());
  EXPECT_EQ(blocks.span()[0], std::byte{2});
  EXPECT_EQ(blocks.span()[8192], std::byte{1});
}

// Mutation: repair_region() counts whatever the own backing says.
TEST_F(ReadRepairTest, ARepairThatFailsChangesNothingForReaders) {
  begin_bad();
  backing.fail_write = Code::kMediumWrite;
  EXPECT_EQ(here(4096), 1);
  EXPECT_EQ(repaired(), 0u);
  EXPECT_FALSE(is_missing(0));
  EXPECT_FALSE(has_bit(0));
  EXPECT_EQ(one.lefts, 0);
  backing.fail_write.reset();
  EXPECT_EQ(here(4096), 1);
  EXPECT_EQ(repaired(), 1u) << "by the next read that failed";
}

// Mutation: start_repair() has no limit.
TEST_F(ReadRepairTest, RepairsUnderWayAreBoundedAndNobodyWaitsForThem) {
  begin(16 * kExtent);
  backing.fail_read = Code::kMediumRead;
  backing.hold = true;
  const size_t writes = backing.count("write");
  for (uint64_t region = 0; region < 16; ++region) EXPECT_EQ(here(region * kExtent), 1);
  EXPECT_EQ(backing.count("write"), writes + 4);
  core().inside([&] { backing.release(); });
  world.run();
  EXPECT_EQ(repaired(), 4u);
  backing.fail_read.reset();
}

// The mark is there before the first byte, and the own backing owes a flush. Mutations:
// repair_region() does not use the tracker; it adds nothing to the window.
TEST_F(ReadRepairTest, ARepairIsMarkedAndInTheWindow) {
  mode(Mode::kSend);
  put_cold(0, kExtent, 4);
  backing.unreadable = kBad;
  EXPECT_EQ(here(4096), 4);
  ASSERT_EQ(repaired(), 1u);
  EXPECT_EQ(store.marks, 1u);
  EXPECT_EQ(volume.own_window().word(HotExtent(0)), 1u);
  ASSERT_TRUE(finish(volume.flush()));
  EXPECT_EQ(volume.own_window().word(HotExtent(0)), 0u);
}

// Also when the target has left since: it is the only one that has the region. Mutation:
// repair_region() does not tell the leg.
TEST_F(ReadRepairTest, ARepairThatIsLostIsMissingAtTheTargetThatAnswered) {
  mode(Mode::kSend);
  put_cold(0, kExtent, 4);
  backing.unreadable = kBad;
  EXPECT_EQ(here(4096), 4);
  ASSERT_EQ(repaired(), 1u);
  leave(one);
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_TRUE(finish(volume.flush()));
  EXPECT_TRUE(is_missing(0));
  EXPECT_EQ(here(4096), 4);
}

// A verify asks what each side has. Mutation: differing() reads with kLocks.
TEST_F(ReadRepairTest, AVerifyIsToldOfTheErrorHere) {
  begin_bad();
  const auto compared = finish(volume.differing(one.leg, {0, kExtent}));
  ASSERT_FALSE(compared);
  EXPECT_EQ(compared.error().code(), Code::kMediumRead);
}

// Mutation: rescue() takes any error.
TEST_F(ReadRepairTest, OnlyErrorsOfTheMediumAreAnsweredFor) {
  begin();
  backing.fail_read = Code::kShutdown;
  EXPECT_EQ(read_error(4096), Code::kShutdown);
  backing.fail_read.reset();
}

}  // namespace
}  // namespace duplex::volume
