// The own backing as a leg: what it failed to store or lost is read at the target that has it,
// comes back, and is told of to nobody as long as a target has it. Source and targets live on
// three cores; every record of the store is kept.
#include "volume/own_leg_test_kit.h"

namespace duplex::volume {
namespace {

using namespace testing;

// Rule 1: the own backing owes from its first write on, and a flush of the host clears that.
// Mutation: change_all() adds nothing to the window.
TEST_F(OwnLegTest, TheOwnBackingOwesAFlushForWhatWasWritten) {
  ASSERT_TRUE(write(kExtent, 4096, 1));
  ASSERT_TRUE(finish(volume.zero({3 * kExtent, 4096}, {})));
  EXPECT_EQ(volume.own_window().word(HotExtent(0)), 0b1010u);
  ASSERT_TRUE(finish(volume.flush()));
  EXPECT_EQ(volume.own_window().word(HotExtent(0)), 0u);
}

// Rule 3. Mutation: conclude() does not write back.
TEST_F(OwnLegTest, AWriteOnlyTheTargetStoredSucceedsAndItsRegionIsDurablyMissing) {
  begin();
  lose_first();
  EXPECT_TRUE(is_missing_on_disk(0));
  EXPECT_EQ(one.became_missing, 1);
  EXPECT_EQ(one.lefts, 0);
  EXPECT_FALSE(has_bit(0));
  EXPECT_EQ(here(0), 2);
  EXPECT_EQ(here(8192), 1);
  EXPECT_EQ(byte_at(backing, 0), 1) << "the own backing is not read";
}

// Mutation: verdict() makes it missing in memory although its record failed, and answers so.
TEST_F(OwnLegTest, AWriteWhoseMissingRegionCannotBeRecordedFails) {
  begin();
  store.fails = true;
  backing.fail_write = Code::kMediumWrite;
  EXPECT_FALSE(write(0, 4096, 2));
  EXPECT_EQ(one.leg.mode(), Mode::kMark);
  EXPECT_TRUE(has_bit(0));
  backing.fail_write.reset();
  store.fails = false;
}

// An old write still goes to a target whose region a new one has marked: the target is not what
// readers are to see. Mutation: holds() does not look at bits.
TEST_F(OwnLegTest, ALegPastACutWithABitHoldsNothing) {
  begin();
  core().inside([&] { one.leg.arm(Epoch(2)); });
  ASSERT_TRUE(finish(volume.forward_write(Epoch(2), 0, filled(4096, 3))));
  backing.fail_write = Code::kMediumWrite;
  EXPECT_FALSE(finish(volume.forward_write(Epoch(1), 4096, filled(4096, 2))));
  EXPECT_FALSE(is_missing(0));
  EXPECT_EQ(here(0), 3);
  EXPECT_EQ(one.leg.mode(), Mode::kMark);
}

// Mutation: verdict() makes it missing at every leg that has it.
TEST_F(OwnLegTest, TheFirstLegThatTookTheWriteIsTheHolder) {
  core().inside([&] {
    join(two, kBits2, kMissing2);
    two.leg.set_mode(Mode::kSendWhereClear);
  });
  begin();
  core().inside([&] { tracker.set(kBits2, {kExtent, kExtent}); });
  backing.fail_write = Code::kMediumWrite;
  ASSERT_TRUE(write(2 * kExtent, 4096, 2));
  EXPECT_TRUE(is_missing(2 * kExtent));
  EXPECT_FALSE(two.leg.is_missing_any());
  leave(one);
  ASSERT_TRUE(write(0, 4096, 2));
  EXPECT_FALSE(is_missing(0));
  EXPECT_TRUE(two.leg.is_missing({0, 1}));
  EXPECT_EQ(here(0), 2);
  EXPECT_FALSE(write(kExtent, 4096, 2)) << "it has a bit there";
}

// A write to another block of the region is under way while it becomes missing, and its target
// part fails: the own backing has it, nobody reads it there. Mutation: verdict() ends with `own`.
TEST_F(OwnLegTest, AWriteWhoseRegionBecomesMissingUnderItCountsAtTheTargetAlone) {
  begin();
  one.backing.hold = true;
  const auto other = start_write(8192, 4096, 3);
  backing.fail_write = Code::kMediumWrite;
  const auto first = start_write(0, 4096, 2);
  backing.fail_write.reset();
  ASSERT_FALSE(other->has_value() || first->has_value());
  // The region is lost by a flush that fails, as far as the target has it.
  backing.fail_flush = {Code::kFlushLost};
  ASSERT_EQ(byte_at(backing, 8192), 3);
  const auto flushed = world.start(core(), volume.flush());
  world.run();
  EXPECT_TRUE(is_missing(0));
  one.backing.fail_write = Code::kMediumWrite;
  world.reactor(1).inside([&] { one.backing.release(); });
  world.run();
  ASSERT_TRUE(other->has_value() && first->has_value() && flushed->has_value());
  EXPECT_FALSE(**other);
  EXPECT_FALSE(**first);
  one.backing.fail_write.reset();
}

// Promise P2: the write was read here already when its region becomes missing; its target has not
// stored it yet. Mutation: read_blocks() does not wait for what is landing.
TEST_F(OwnLegTest, WhatWasReadHereIsStillReadWhenItsRegionBecomesMissing) {
  begin();
  ASSERT_TRUE(write(8192, 4096, 2));
  one.backing.hold = true;
  const auto written = start_write(0, 4096, 3);
  ASSERT_FALSE(written->has_value());
  EXPECT_EQ(here(0), 3);
  backing.fail_flush = {Code::kFlushLost};
  ASSERT_FALSE(finish(tracker.flush(volume.own_debtor())));
  ASSERT_TRUE(is_missing(0));
  const rt::Buffer block = core().buffers().get(kBlockBytes);
  const auto read = world.start(core(), volume.read(0, block.span()));
  world.run();
  EXPECT_FALSE(read->has_value());
  world.reactor(1).inside([&] { one.backing.release(); });
  world.run();
  ASSERT_TRUE(read->has_value() && written->has_value());
  EXPECT_TRUE(**read && **written);
  EXPECT_EQ(static_cast<int>(block.span()[0]), 3);
}

// Rule 4, trace F24 (b). Mutation: route() gives the own backing when the leg is in kMark.
TEST_F(OwnLegTest, ARegionIsMissingForReadersWhenItsTargetIsAway) {
  begin();
  lose_first();
  leave(one);
  EXPECT_EQ(here(0), 2);
  one.backing.fail_read = Code::kMediumRead;
  int value = 0;
  EXPECT_EQ(read(0, value).error().code(), Code::kMediumRead);
  EXPECT_EQ(here(kExtent), 1);
  one.backing.fail_read.reset();
}

// A flush fails while a read of the own backing is under way: what was read may be lost. Mutation:
// read() does not look again.
TEST_F(OwnLegTest, AReadOfWhatIsLostMeanwhileIsReadAgainAtTheTarget) {
  begin();
  ASSERT_TRUE(write(0, 4096, 2));
  backing.hold_reads = true;
  backing.fail_flush = {Code::kFlushLost};
  const rt::Buffer block = core().buffers().get(kBlockBytes);
  const size_t reads = one.backing.count("read");
  const auto flushed = world.start(core(), volume.flush());
  const auto done = world.start(core(), volume.read(0, block.span()));
  world.run();
  core().inside([&] { backing.release(); });
  world.run();
  ASSERT_TRUE(done->has_value() && flushed->has_value());
  EXPECT_TRUE(**flushed);
  EXPECT_EQ(one.backing.count("read"), reads + 1);
  EXPECT_EQ(static_cast<int>(block.span()[0]), 2);
}

// The same for the rest of a block that is written in part. Mutation: read_blocks() does not look
// again.
TEST_F(OwnLegTest, ABlockCompletedFromWhatIsLostMeanwhileIsReadAgainAtTheTarget) {
  begin();
  ASSERT_TRUE(write(0, 4096, 2));
  backing.hold_reads = true;
  backing.fail_flush = {Code::kFlushLost};
  const size_t reads = one.backing.count("read");
  const auto flushed = world.start(core(), volume.flush());
  const auto written = world.start(core(), volume.write(100, filled(10, 3), false));
  world.run();
  core().inside([&] { backing.release(); });
  world.run();
  ASSERT_TRUE(written->has_value() && flushed->has_value());
  EXPECT_TRUE(**written && **flushed);
  EXPECT_EQ(one.backing.count("read"), reads + 1);
  EXPECT_EQ(here(99), 2);
  EXPECT_EQ(here(100), 3);
}

// Mutation: status() asks the own backing alone.
TEST_F(OwnLegTest, BlockStatusFollowsTheReads) {
  mode(Mode::kMark);
  ASSERT_TRUE(finish(one.target.write(kExtent, filled(4096, 5), false)));
  set_missing(0, 3 * kExtent);
  const auto runs = finish(volume.status({0, kSize}, 8));
  ASSERT_TRUE(runs && runs->size() == 3);
  EXPECT_TRUE((*runs)[0].hole);
  EXPECT_FALSE((*runs)[1].hole);
  EXPECT_EQ((*runs)[1].length, kExtent);
  EXPECT_TRUE((*runs)[2].hole);
}

// Rule 5, traces F4 (a) and F24 (d). Mutation: write() does not bring back.
TEST_F(OwnLegTest, AWriteBringsItsRegionBackFirst) {
  begin();
  lose_first();
  const size_t marks = store.marks, writes = one.backing.count("write");
  ASSERT_TRUE(write(8192 + 100, 10, 3));
  EXPECT_FALSE(is_missing(0));
  EXPECT_EQ(byte_at(backing, 0), 2);
  EXPECT_EQ(byte_at(backing, 8192 + 100), 3);
  EXPECT_EQ(byte_at(backing, 8192), 1);
  EXPECT_EQ(one.backing.count("write"), writes + 1) << "what came back goes to nobody";
  EXPECT_EQ(store.marks, marks) << "it is hot already";
  EXPECT_TRUE(is_missing_on_disk(0));
}

// In a restore the target keeps what it has (trace F4 (b)). Mutation: lock_and_bring_back() locks
// the blocks alone (seen by the two writers).
TEST_F(OwnLegTest, WritersBesideEachOtherInAMissingRegionLoseNothing) {
  ASSERT_TRUE(finish(one.target.write(0, filled(2 * kExtent, 7), false)));
  set_missing(0, 2 * kExtent);
  one.backing.slow = backing.slow = true;
  const auto a = world.start(core(), volume.write(0, filled(4096, 1), false));
  const auto b = world.start(core(), volume.write(4096, filled(4096, 2), false));
  const auto c = world.start(core(), volume.zero({8192, kExtent}, {}));
  world.run();
  ASSERT_TRUE(a->has_value() && **a && b->has_value() && **b && c->has_value() && **c);
  EXPECT_EQ(here(0), 1);
  EXPECT_EQ(here(4096), 2);
  EXPECT_EQ(here(8192), 0);
  EXPECT_EQ(here(8192 + kExtent), 7);
  EXPECT_EQ(byte_at(one.backing, 0), 7);
  EXPECT_FALSE(one.leg.is_missing_any());
  EXPECT_EQ(one.leg.bits().count(), 2u);
}

// Mutation: bring_back() gives every error back.
TEST_F(OwnLegTest, WhereTheOwnBackingStillFailsAWriteGoesToTheHolderAndTheRegionStaysMissing) {
  begin();
  lose_first();
  backing.fail_write = Code::kMediumWrite;
  ASSERT_TRUE(write(8192, 4096, 3));
  EXPECT_TRUE(is_missing(0));
  EXPECT_EQ(here(8192), 3);
  ASSERT_TRUE(write(100, 10, 4)) << "reads the rest of the block at the holder";
  EXPECT_EQ(here(100), 4);
  EXPECT_EQ(here(99), 2);
  leave(one);
  EXPECT_FALSE(write(8192, 4096, 5));
  EXPECT_EQ(here(8192), 3);
  backing.fail_write.reset();
}

// In doubt and missing, it gets nothing from a write while the copy runs. Mutation:
// TargetLeg::write() says it took a write of which it skipped a part.
TEST_F(OwnLegTest, ALegThatSkippedAPartOfAWriteHasNotTakenIt) {
  begin();
  lose_first();
  core().inside([&] {
    tracker.set(kMissing, {kExtent, kExtent});
    tracker.set(kBits, {0, kExtent});
    one.leg.set_mode(Mode::kSendWhereClear);
  });
  backing.fail_write = Code::kMediumWrite;
  EXPECT_FALSE(write(0, 2 * kExtent, 3));
  EXPECT_EQ(here(0), 2);
  backing.fail_write.reset();
}

// Rule 6, traces F24 (e) and F27 (a). Mutations: bring_run_back() adds nothing to the window;
// flush_all() does not write back.
TEST_F(OwnLegTest, TheMarkLeavesTheDiskAfterTheOwnFlushAndBeforeTheFlushIsAnswered) {
  begin();
  lose_first();
  ASSERT_TRUE(finish(volume.flush()));
  ASSERT_TRUE(finish(volume.restore_step(one.leg, 0)));
  ASSERT_FALSE(is_missing(0));
  ASSERT_TRUE(finish(tracker.write_back(kMissing)));
  EXPECT_TRUE(is_missing_on_disk(0)) << "a power loss takes it from the own backing";
  ASSERT_TRUE(write(8192, 4096, 3));
  ASSERT_TRUE(finish(volume.flush()));
  EXPECT_FALSE(is_missing_on_disk(0)) << "a crash would read the old region";
}

// Trace F24 (g). Mutation: flush_all() does not heed what a holder says.
TEST_F(OwnLegTest, AFlushWaitsForTheTargetThatHasWhatIsMissingInAnyMode) {
  begin();
  lose_first();
  leave(one);
  const size_t flushes = one.backing.count("flush");
  EXPECT_TRUE(finish(volume.flush()));
  EXPECT_EQ(one.backing.count("flush"), flushes + 1);
  one.backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(volume.flush()));
}

// Trace F23. Mutation: own_lost() sets bits alone.
TEST_F(OwnLegTest, WhatAFailedFlushLostIsMissingWhereATargetHoldsItAndTheFlushSucceeds) {
  begin();
  ASSERT_TRUE(write(kExtent, 4096, 2));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_TRUE(finish(volume.flush()));
  EXPECT_FALSE(is_missing(0)) << "an earlier flush covered it";
  EXPECT_TRUE(is_missing(kExtent));
  EXPECT_TRUE(is_missing_on_disk(1));
  EXPECT_EQ(one.became_missing, 1);
  EXPECT_TRUE(finish(volume.flush()));
  ASSERT_TRUE(finish(volume.write(2 * kExtent, filled(4096, 3), false)));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_TRUE(finish(volume.write(3 * kExtent, filled(4096, 3), true))) << "FUA the same way";
  EXPECT_TRUE(is_missing(2 * kExtent));
}

// A copying leg was not asked to flush when the FLUSH began. Mutation: flush_all() without its
// second round.
TEST_F(OwnLegTest, ALegThatBecomesAHolderInAFlushIsFlushedBeforeTheAnswer) {
  mode(Mode::kSendWhereClear);
  ASSERT_TRUE(write(0, 4096, 2));
  const size_t flushes = one.backing.count("flush");
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_TRUE(finish(volume.flush()));
  EXPECT_TRUE(is_missing(0));
  EXPECT_EQ(one.backing.count("flush"), flushes + 1);
}

// The second one has what the first one has lost now, durably. Mutations: lost_at() sets no
// bits; it lets the other legs go on; it leaves untold_ alone.
TEST_F(OwnLegTest, WhatIsMissingAndLostAtItsTargetIsInDoubtAtTheOthersAndOneFlushFails) {
  core().inside([&] {
    join(two, kBits2, kMissing2);
    two.leg.set_mode(Mode::kSend);
  });
  begin();
  ASSERT_TRUE(write(0, 4096, 2));
  ASSERT_TRUE(finish(tracker.flush(two.leg)));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(tracker.flush(volume.own_debtor())));
  ASSERT_TRUE(is_missing(0));
  one.backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(tracker.flush(one.leg)));
  EXPECT_TRUE(is_missing(0)) << "nobody has anything newer that counts";
  EXPECT_TRUE(two.leg.bits().any({0, 1}));
  EXPECT_FALSE(two.leg.bits().any({kExtent, 1}));
  EXPECT_EQ(two.leg.mode(), Mode::kMark);
  EXPECT_EQ(two.lefts, 1);
  EXPECT_FALSE(finish(volume.flush()));
  EXPECT_TRUE(finish(volume.flush()));
}

// The same when it had come back, and the own backing loses it then. The target owes a flush for it
// again, for whatever reason: it was flushed before the region came back. Mutation:
// TargetLeg::lost() leaves unchanged_ alone.
TEST_F(OwnLegTest, WhatCameBackFromATargetThatHasLostItSinceIsNotMissingThereUntold) {
  begin();
  ASSERT_TRUE(write(0, 4096, 2));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(tracker.flush(volume.own_debtor())));
  ASSERT_TRUE(is_missing(0));
  ASSERT_TRUE(finish(volume.restore_step(one.leg, 0)));
  ASSERT_FALSE(is_missing(0));
  core().inside([&] {
    Window& window = one.leg.window();
    EXPECT_TRUE(window.add({0, kExtent}, window.stamp()));
  });
  one.backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(tracker.flush(one.leg)));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(tracker.flush(volume.own_debtor())));
  EXPECT_FALSE(finish(volume.flush()));
}

// Mutation: own_lost() leaves recorded maps out.
TEST_F(OwnLegTest, WhatNobodyHoldsGetsABitInEveryMapAndOneFlushFails) {
  core().inside([&] {
    join(two, kBits2, kMissing2);
    tracker.add_map(kRecorded, MapKind::kCopyAway, ChangeMap(kSize));
  });
  mode(Mode::kSendWhereClear);
  ASSERT_TRUE(write(0, 4096, 1));
  leave(one);
  core().inside([&] {
    tracker.begin_copy(kBits, {0, kExtent}).done();
    tracker.begin_copy(kBits2, {0, kExtent}).done();
    volume.record_into(kRecorded);
  });
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_EQ(finish(volume.flush()).error().code(), Code::kFlushLost);
  EXPECT_TRUE(has_bit(0));
  EXPECT_TRUE(two.leg.bits().any({0, 1}));
  EXPECT_TRUE(tracker.map(kRecorded).any({0, 1}));
  EXPECT_FALSE(is_missing(0));
  EXPECT_TRUE(finish(volume.flush()));
}

// A write that a loss overtook counts as failed. Mutation: change_all() ignores what add() says.
TEST_F(OwnLegTest, AWriteUnderWayAtALossCountsAsFailedHere) {
  begin();
  one.backing.hold = true;
  backing.hold = true;
  const auto written = start_write(0, 4096, 2);
  backing.fail_flush = {Code::kFlushLost};
  const auto flushed = world.start(core(), volume.flush());
  world.run();
  EXPECT_FALSE(is_missing(0)) << "nothing was in the window";
  core().inside([&] { backing.release(); });
  world.reactor(1).inside([&] { one.backing.release(); });
  world.run();
  ASSERT_TRUE(written->has_value() && flushed->has_value());
  EXPECT_TRUE(**written);
  EXPECT_TRUE(is_missing(0));
}

// What was brought back in a restore is still at the target; what was written since is nowhere
// else. Mutations: holds_lost() is holds(); admit() forgets nothing; own_lost() without an origin.
TEST_F(OwnLegTest, WhatCameBackAndWasLostIsMissingAgainUnlessItWasWritten) {
  ASSERT_TRUE(finish(one.target.write(0, filled(2 * kExtent, 7), false)));
  set_missing(0, 2 * kExtent);
  for (uint64_t from = 0; from < 2 * kExtent;) {
    const auto step = finish(volume.restore_step(one.leg, from));
    ASSERT_TRUE(step);
    from = step->next;
  }
  ASSERT_FALSE(one.leg.is_missing_any());
  ASSERT_TRUE(write(kExtent, 4096, 3));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(volume.flush()));
  EXPECT_TRUE(is_missing(0));
  EXPECT_FALSE(has_bit(0));
  EXPECT_TRUE(is_missing(kExtent)) << "the own backing may have what was there before the restore";
  EXPECT_TRUE(has_bit(kExtent));
  EXPECT_TRUE(finish(volume.flush()));
  EXPECT_TRUE(is_missing_on_disk(1));
}

// Both began after the write and before the loss. Mutation: flush_own() heeds its own flush alone.
TEST_F(OwnLegTest, AFlushUnderWayAtALossOfWhatCameBackFailsAsWell) {
  ASSERT_TRUE(finish(one.target.write(0, filled(kExtent, 7), false)));
  set_missing(0, kExtent);
  ASSERT_TRUE(finish(volume.restore_step(one.leg, 0)));
  ASSERT_TRUE(write(0, 4096, 3));
  backing.hold_reads = true;
  backing.fail_flush = {Code::kFlushLost};
  const auto first = world.start(core(), volume.flush());
  const auto second = world.start(core(), volume.flush());
  world.run();
  core().inside([&] { backing.release(); });
  world.run();
  ASSERT_TRUE(first->has_value() && second->has_value());
  EXPECT_EQ(here(0), 7);
  EXPECT_FALSE(**first);
  EXPECT_FALSE(**second);
  EXPECT_TRUE(finish(volume.flush()));
}

// Mutation: OwnDebtor::flush() does not end the window of what came back.
TEST_F(OwnLegTest, WhatCameBackAndWasFlushedIsNotMissingAfterALaterLoss) {
  set_missing(0, kExtent);
  ASSERT_TRUE(finish(volume.restore_step(one.leg, 0)));
  ASSERT_TRUE(finish(volume.flush()));
  ASSERT_TRUE(write(0, 4096, 3));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(volume.flush()));
  EXPECT_FALSE(is_missing(0));
  EXPECT_TRUE(has_bit(0));
}

// Rule 7. Mutation: restore_step() forwards (write_all() in place of the own leg).
TEST_F(OwnLegTest, AStepBackWritesTheOwnBackingOnlyAndAHoleThereUnmapsHere) {
  ASSERT_TRUE(write(0, 2 * kExtent, 9));
  core().inside([&] { tracker.begin_copy(kBits, {0, 2 * kExtent}).done(); });
  ASSERT_TRUE(finish(one.target.write(0, filled(4096, 7), false)));
  set_missing(0, 2 * kExtent);
  const size_t writes = one.backing.count("write");
  const auto step = finish(volume.restore_step(one.leg, 0));
  ASSERT_TRUE(step);
  EXPECT_EQ(step->done_bytes, 2 * kExtent);
  EXPECT_EQ(step->moved_bytes, kExtent);
  EXPECT_EQ(byte_at(backing, 0), 7);
  EXPECT_EQ(byte_at(backing, 4096), 0);
  EXPECT_TRUE(backing.is_hole({kExtent, kExtent}));
  EXPECT_EQ(one.backing.count("write"), writes);
  EXPECT_TRUE(one.leg.bits().empty());
}

// Trace F24 (c). Mutations: next_copy() does not skip; copy_step() reads the own backing (seen by
// the other leg's copy).
TEST_F(OwnLegTest, ACopyLeavesRegionsMissingAtItsLegAloneAndReadsOthersWhereTheyAre) {
  core().inside([&] { join(two, kBits2, kMissing2); });
  ASSERT_TRUE(finish(one.target.write(0, filled(kExtent, 7), false)));
  set_missing(0, kExtent);
  core().inside([&] {
    tracker.set(kBits, {0, 2 * kExtent});
    tracker.set(kBits2, {0, 2 * kExtent});
    one.leg.set_mode(Mode::kSendWhereClear);
    two.leg.set_mode(Mode::kSendWhereClear);
  });
  EXPECT_EQ(volume.next_copy(one.leg, 0, kMiB), (ByteRange{kExtent, kExtent}));
  const auto step = finish(volume.copy_step(two.leg, 0, Epoch(1)));
  ASSERT_TRUE(step);
  EXPECT_EQ(byte_at(two.backing, 0), 7);
  EXPECT_EQ(byte_at(one.backing, 0), 7);
  // The bit beside it goes when it is back.
  ASSERT_TRUE(finish(volume.restore_step(one.leg, 0)));
  EXPECT_FALSE(has_bit(0));
  EXPECT_TRUE(has_bit(kExtent));
}

// Rule 8. Mutation: change_all() records nothing.
TEST_F(OwnLegTest, WhatPassesTheGateIsRecordedAlsoWithoutLegs) {
  core().inside([&] {
    volume.remove_leg(one.leg);
    tracker.add_map(kRecorded, MapKind::kCopyAway, ChangeMap(kSize));
    volume.record_into(kRecorded);
  });
  ASSERT_TRUE(write(0, 4096, 1));
  ASSERT_TRUE(finish(volume.zero({2 * kExtent, kExtent}, {})));
  ASSERT_TRUE(finish(volume.forward_write(Epoch(1), 4 * kExtent, filled(4096, 1))));
  core().inside([&] { volume.stop_recording(kRecorded); });
  ASSERT_TRUE(write(6 * kExtent, 4096, 1));
  EXPECT_EQ(tracker.map(kRecorded).word(HotExtent(0)), 0b10101u);
}

// A volume in the middle of a chain: what a write from above needed was to come back while the leg
// took writes, and the leg has left before the gate opened. Mutation: forward() takes the first
// step for the last.
TEST_F(OwnLegTest, AWriteFromAboveBeginsAgainWhenTheLegThatHasItsRegionLeavesAtTheGate) {
  const auto is_stored = [&](rt::Task<Result<void>> request) {
    mode(Mode::kSend);
    EXPECT_TRUE(write(0, kExtent, 1));
    lose_first();
    backing.fail_write = Code::kMediumWrite;
    std::optional<Gate::Closer> closer(volume.gate().close());
    const auto done = world.start(core(), std::move(request));
    world.run();
    EXPECT_FALSE(done->has_value());
    EXPECT_TRUE(is_missing(0));
    leave(one);
    backing.fail_write.reset();
    core().inside([&] { closer.reset(); });
    world.run();
    EXPECT_FALSE(is_missing(0));
    const bool is_done = done->has_value() && done->value();
    core().inside([&] { tracker.replace(kBits, ChangeMap(kSize)); });
    return is_done;
  };
  EXPECT_TRUE(is_stored(volume.forward_write(Epoch(1), 0, filled(4096, 3))));
  EXPECT_EQ(byte_at(backing, 0), 3);
  EXPECT_TRUE(is_stored(volume.forward_zero(Epoch(1), {0, 4096}, pool::ZeroMode::kKeep)));
  EXPECT_EQ(byte_at(backing, 0), 0);
}

// Rule 9. Mutation: drained() does not wait for reads.
TEST_F(OwnLegTest, ALegIsDrainedWhenTheReadsOfItsTargetHaveEnded) {
  begin();
  lose_first();
  leave(one);
  one.backing.hold_reads = true;
  const rt::Buffer block = core().buffers().get(kBlockBytes);
  const auto done = world.start(core(), volume.read(0, block.span()));
  world.run();
  const auto drained = world.start(core(), testing::ended(one.leg.drained()));
  world.run();
  EXPECT_FALSE(drained->has_value());
  world.reactor(1).inside([&] { one.backing.release(); });
  world.run();
  EXPECT_TRUE(done->has_value() && drained->has_value());
  EXPECT_TRUE(is_missing(0));
}

// Mutation: take_tracker() waits for nothing.
TEST_F(OwnLegTest, TheTrackerStaysUntilAFlushHasEnded) {
  core().inside([&] { volume.remove_leg(one.leg); });
  backing.hold_reads = true;
  const auto flushed = world.start(core(), volume.flush());
  const auto taken = world.start(core(), testing::ended(volume.take_tracker()));
  world.run();
  EXPECT_FALSE(taken->has_value());
  core().inside([&] { backing.release(); });
  world.run();
  EXPECT_TRUE(flushed->has_value() && taken->has_value());
}

}  // namespace
}  // namespace duplex::volume
