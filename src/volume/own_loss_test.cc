// Losses of the own backing: who is told, and which target holds what was lost.
#include "volume/own_leg_test_kit.h"

namespace duplex::volume {
namespace {

using namespace testing;

using OwnLossTest = OwnLegTest;

// The tracker flushes by itself when it cools: nobody is there to be told. Mutation: own_lost()
// leaves untold_ alone.
TEST_F(OwnLossTest, ALossInCoolingFailsTheNextFlushOfTheHostAndTheNextOneFromAbove) {
  ASSERT_TRUE(write(0, 4096, 1));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(tracker.flush(volume.own_debtor())));
  EXPECT_FALSE(finish(volume.forward_flush()));
  EXPECT_TRUE(finish(volume.forward_flush()));
  EXPECT_FALSE(finish(volume.flush()));
  EXPECT_TRUE(finish(volume.flush()));
}

// A verb's own flush meets the loss, or comes after it. Mutation: flush_untold() is
// flush_and_tell(untold_.host).
TEST_F(OwnLossTest, ALossThatAVerbHasMetIsToldToTheHostAllTheSame) {
  for (const bool is_met : {false, true}) {
    ASSERT_TRUE(write(0, 4096, 1));
    backing.fail_flush = {Code::kFlushLost};
    if (!is_met) EXPECT_FALSE(finish(tracker.flush(volume.own_debtor())));
    EXPECT_EQ(finish(volume.flush_untold()).has_value(), !is_met);
    EXPECT_TRUE(finish(volume.flush_untold()));
    EXPECT_FALSE(finish(volume.flush()));
    EXPECT_TRUE(finish(volume.flush()));
  }
}

// The flush of a leg before a restore meets what hosts of the split target have lost. Mutation:
// flush_and_tell() clears both.
TEST_F(OwnLossTest, ALossToldToTheLegAboveIsToldToTheHostsOfASplitVolumeToo) {
  core().inside([&] {
    tracker.add_map(kRecorded, MapKind::kCopyAway, ChangeMap(kSize));
    volume.record_into(kRecorded);
  });
  ASSERT_TRUE(write(0, 4096, 1));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(volume.forward_flush()));
  EXPECT_FALSE(finish(volume.flush()));
  EXPECT_TRUE(finish(volume.flush()));
  EXPECT_TRUE(finish(volume.forward_flush()));
}

// Mutations: record_into() leaves untold_ alone; stop_recording() does; forget_losses_above() and
// forget_losses_of_hosts() do.
TEST_F(OwnLossTest, NewHostsAndANewSessionHearOfNoOldLoss) {
  core().inside([&] { tracker.add_map(kRecorded, MapKind::kCopyAway, ChangeMap(kSize)); });
  ASSERT_TRUE(write(0, 4096, 1));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(volume.forward_flush()));
  core().inside([&] { volume.record_into(kRecorded); });
  EXPECT_TRUE(finish(volume.flush()));
  ASSERT_TRUE(write(0, 4096, 2));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(volume.flush()));
  core().inside([&] { volume.stop_recording(kRecorded); });
  EXPECT_TRUE(finish(volume.forward_flush()));
  ASSERT_TRUE(write(0, 4096, 3));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(volume.forward_flush()));
  core().inside([&] { volume.forget_losses_of_hosts(); });
  EXPECT_TRUE(finish(volume.flush()));
  ASSERT_TRUE(write(0, 4096, 4));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(volume.flush()));
  core().inside([&] { volume.forget_losses_above(); });
  EXPECT_TRUE(finish(volume.forward_flush()));
}

// What was copied is in the target's cache alone: with that it would lose what was flushed here
// long ago. Mutation: holds() does not look at owes_copy().
TEST_F(OwnLossTest, ATargetThatHasNotFlushedWhatWasCopiedHoldsNothingThatIsLostHere) {
  begin();
  leave(one);
  ASSERT_TRUE(write(0, 4096, 2));
  ASSERT_TRUE(finish(volume.flush()));
  mode(Mode::kSendWhereClear);
  ASSERT_TRUE(finish(volume.copy_step(one.leg, 0, Epoch(1))));
  ASSERT_TRUE(write(8192, 4096, 3));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(volume.flush()));
  EXPECT_FALSE(is_missing(0));
  EXPECT_TRUE(has_bit(0));
  EXPECT_EQ(here(0), 2);
}

// It holds what was written there since, too, and has no bit that nobody copies. Mutation:
// owes_copy() does not look at the mode.
TEST_F(OwnLossTest, ATargetThatIsInSyncAfterACopyHoldsWhatWasWrittenSince) {
  begin();
  leave(one);
  ASSERT_TRUE(write(0, 4096, 2));
  mode(Mode::kSendWhereClear);
  ASSERT_TRUE(finish(volume.copy_step(one.leg, 0, Epoch(1))));
  ASSERT_TRUE(finish(tracker.flush(one.leg)));
  mode(Mode::kSend);
  ASSERT_TRUE(write(8192, 4096, 3));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_TRUE(finish(volume.flush()));
  EXPECT_TRUE(is_missing(0));
  EXPECT_FALSE(has_bit(0));
  EXPECT_EQ(here(8192), 3);
}

// Mutations: conclude() flushes no target; verdict() comes before that.
TEST_F(OwnLossTest, ATargetThatWasCopiedToFlushesBeforeItHoldsWhatCouldNotBeStoredHere) {
  begin();
  for (const bool flushes : {true, false}) {
    core().inside([&] { tracker.set(kBits, {kExtent, kExtent}); });
    mode(Mode::kSendWhereClear);
    ASSERT_TRUE(finish(volume.copy_step(one.leg, 0, Epoch(1))));
    const size_t before = one.backing.count("flush");
    if (!flushes) one.backing.fail_flush = {Code::kFlushLost};
    backing.fail_write = Code::kMediumWrite;
    EXPECT_EQ(write(kExtent, 4096, 2).has_value(), flushes);
    backing.fail_write.reset();
    EXPECT_EQ(one.backing.count("flush"), before + 1);
    EXPECT_EQ(is_missing(kExtent), flushes);
    EXPECT_EQ(has_bit(kExtent), !flushes);
    if (!flushes) continue;
    ASSERT_TRUE(finish(volume.restore_step(one.leg, 0)));
    ASSERT_TRUE(finish(volume.flush()));
    leave(one);
  }
}

// It may become the only one that has a region. Mutation: flush_all() asks legs in kSend alone.
TEST_F(OwnLossTest, AFlushAsksATargetThatIsBeingCopiedAsWell) {
  begin();
  leave(one);
  mode(Mode::kSendWhereClear);
  const size_t before = one.backing.count("flush");
  ASSERT_TRUE(write(4 * kExtent, 4096, 2));
  ASSERT_TRUE(finish(volume.flush()));
  EXPECT_EQ(one.backing.count("flush"), before + 1);
}

// Another volume's flush has met the loss. Mutation: read_blocks() does not ask for it.
TEST_F(OwnLossTest, ALossThatNobodyHasToldOfIsSettledBeforeWhatItLeftIsRead) {
  begin();
  ASSERT_TRUE(write(0, 4096, 2));
  ASSERT_TRUE(finish(backing.write(0, filled(4096, 1))));
  backing.untold_loss = true;
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_EQ(here(0), 2);
  EXPECT_TRUE(is_missing(0));
}

// Every flush fails, and writes go on: there is always one more. Mutations: kMostTold is 100;
// rescue_part() does not ask for a loss.
TEST_F(OwnLossTest, AReadOfADeviceThatGoesOnLosingIsAnsweredByATargetOrRefused) {
  begin(2 * kExtent);
  ASSERT_TRUE(finish(backing.write(0, filled(2 * kExtent, 9))));
  backing.untold_loss = backing.always_writes = true;
  backing.fail_flush.assign(50, Code::kFlushLost);
  EXPECT_EQ(here(0), 1);
  EXPECT_LE(backing.count("flush"), 5u);
  core().inside([&] { tracker.set(kBits, {kExtent, kExtent}); });
  const rt::Buffer both = core().buffers().get(2 * kExtent);
  const auto mixed = finish(volume.read(0, both.span()));
  ASSERT_FALSE(mixed);
  EXPECT_EQ(mixed.error().code(), Code::kMediumRead);
  leave(one);
  int value = -1;
  EXPECT_FALSE(read(0, value));
}

// A host's own read of whole blocks takes a way of its own. Mutation: read() looks at is_missing()
// alone.
TEST_F(OwnLossTest, AHostThatReadsWholeBlocksFindsNothingThatALostCacheLeft) {
  begin();
  ASSERT_TRUE(write(0, 4096, 2));
  ASSERT_TRUE(finish(backing.write(0, filled(4096, 1))));
  backing.untold_loss = true;
  backing.fail_flush = {Code::kFlushLost};
  const rt::Buffer block = core().buffers().get(kBlockBytes);
  ASSERT_TRUE(finish(volume.read(0, block.span())));
  EXPECT_EQ(static_cast<int>(block.span()[0]), 2);
}

// The target alone has it and loses it in the flush; before the own backing's flush has ended, the
// region is back with what it held before. Mutation: lost_at() counts no loss.
TEST_F(OwnLossTest, AWriteWithFuaThatATargetAloneHadAndLostIsRefusedThoughTheRegionIsBackByThen) {
  begin();
  lose_first();
  ASSERT_TRUE(finish(volume.flush()));
  backing.fail_write = Code::kMediumWrite;
  backing.hold_reads = true;
  one.backing.fail_flush = {Code::kFlushLost};
  const auto written = world.start(core(), volume.write(0, filled(4096, 3), true));
  world.run();
  ASSERT_FALSE(written->has_value());
  ASSERT_EQ(one.lefts, 1);
  backing.fail_write.reset();
  ASSERT_TRUE(finish(volume.restore_step(one.leg, 0)));
  ASSERT_FALSE(is_missing(0));
  core().inside([&] { backing.release(); });
  world.run();
  ASSERT_TRUE(written->has_value());
  EXPECT_FALSE(written->value());
}

// It has two pieces, and another flush has met the loss of the first one. Mutation: flush_since()
// does not compare the losses.
TEST_F(OwnLossTest, AWriteWithFuaIsRefusedWhenAnotherFlushHasMetTheLossOfAPartOfIt) {
  begin();
  leave(one);
  backing.hold_reads = true;
  const auto written = world.start(core(), volume.write(0, filled(4096 + 512, 2), true));
  world.run();
  ASSERT_FALSE(written->has_value());
  core().inside([&] {
    volume.own_debtor().lost(Error(Code::kFlushLost));
    backing.release();
  });
  world.run();
  ASSERT_TRUE(written->has_value());
  EXPECT_FALSE(written->value());
}

// The same without FUA: the flush that met the loss has told its own host, and the next one says
// nothing. Mutations: write() does not compare the losses; zero_in_order() does not.
TEST_F(OwnLossTest, ARequestOfSeveralPiecesIsRefusedWhenOneOfThemWasLostMeanwhile) {
  begin();
  leave(one);
  const auto is_refused = [&](rt::Task<Result<void>> request) {
    backing.hold_reads = true;
    const auto done = world.start(core(), std::move(request));
    world.run();
    EXPECT_FALSE(done->has_value());
    core().inside([&] {
      volume.own_debtor().lost(Error(Code::kFlushLost));
      backing.release();
    });
    world.run();
    EXPECT_FALSE(finish(volume.flush()));
    EXPECT_TRUE(finish(volume.flush()));
    return done->has_value() && !done->value();
  };
  EXPECT_TRUE(is_refused(volume.write(0, filled(4096 + 512, 2), false)));
  EXPECT_TRUE(is_refused(volume.zero({0, 4096 + 512}, {})));
}

// What was lost before the first piece is none of it. Mutation: write() and zero_in_order() count
// from their beginning.
TEST_F(OwnLossTest, ARequestThatWaitedWhileOthersWereLostIsNotRefused) {
  begin();
  leave(one);
  ASSERT_TRUE(write(2 * kExtent, 4096, 1));
  const auto is_taken = [&](rt::Task<Result<void>> request) {
    backing.hold = true;
    const auto first = start_write(0, 4096, 2);
    const auto second = world.start(core(), std::move(request));
    world.run();
    core().inside([&] {
      volume.own_debtor().lost(Error(Code::kFlushLost));
      backing.release();
    });
    world.run();
    return second->has_value() && second->value();
  };
  EXPECT_TRUE(is_taken(volume.write(0, filled(4096, 3), false)));
  EXPECT_TRUE(is_taken(volume.zero({0, 4096}, {})));
}

// The own backing has stored and lost it before the target was done, and that was told. Mutation:
// verdict() does not compare the losses.
TEST_F(OwnLossTest, AWriteIsRefusedWhenItWasLostAndThatWasToldBeforeTheTargetHadIt) {
  begin();
  leave(one);
  ASSERT_TRUE(write(0, 4096, 2));
  ASSERT_TRUE(finish(volume.flush()));
  mode(Mode::kSendWhereClear);
  ASSERT_TRUE(finish(volume.copy_step(one.leg, 0, Epoch(1))));
  one.backing.hold = true;
  const auto written = start_write(0, 4096, 3);
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(tracker.flush(volume.own_debtor())));
  world.reactor(1).inside([&] { one.backing.release(); });
  world.run();
  ASSERT_TRUE(written->has_value());
  EXPECT_FALSE(written->value());
}

// The target has lost what it alone had, and would not say so before the next flush of the host: by
// then the region is back, with something older. Mutation: bring_run_back() flushes no target.
TEST_F(OwnLossTest, ATargetFlushesWhatItAloneHasBeforeThatComesBack) {
  begin();
  lose_first();
  const size_t before = one.backing.count("flush");
  one.backing.fail_flush = {Code::kFlushLost};
  ASSERT_TRUE(finish(volume.restore_step(one.leg, 0)));
  EXPECT_EQ(one.backing.count("flush"), before + 1);
  EXPECT_FALSE(is_missing(0));
  EXPECT_FALSE(finish(volume.flush()));
  EXPECT_TRUE(finish(volume.flush()));
}

// Mutation: bring_run_back() asks is_missing().
TEST_F(OwnLossTest, ATargetThatHasFlushedWhatItAloneHasIsNotFlushedAgain) {
  begin();
  lose_first();
  ASSERT_TRUE(finish(volume.flush()));
  const size_t before = one.backing.count("flush");
  ASSERT_TRUE(finish(volume.restore_step(one.leg, 0)));
  EXPECT_EQ(one.backing.count("flush"), before);
}

// A restore goes on while flushes overlap. Mutation: returned is a window of two generations.
TEST_F(OwnLossTest, WhatCameBackAndWasFlushedHereIsNotReadAtTheTargetAgain) {
  begin();
  leave(one);
  set_missing(0, 3 * kExtent);
  ASSERT_TRUE(finish(volume.restore_step(one.leg, 0, kExtent)));
  backing.hold_reads = true;
  const auto first = world.start(core(), volume.flush());
  ASSERT_TRUE(finish(volume.restore_step(one.leg, kExtent, kExtent)));
  ASSERT_TRUE(write(kExtent, 4096, 5));
  const auto second = world.start(core(), volume.flush());
  ASSERT_TRUE(finish(volume.restore_step(one.leg, 2 * kExtent, kExtent)));
  world.reactor(0).inside([&] { backing.release(); });
  world.run();
  ASSERT_TRUE(first->has_value() && **first);
  ASSERT_TRUE(second->has_value() && **second);
  EXPECT_FALSE(is_missing_on_disk(1));
  EXPECT_TRUE(is_missing_on_disk(2));
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(volume.flush()));
  EXPECT_FALSE(is_missing(kExtent));
  EXPECT_TRUE(is_missing(2 * kExtent));
  EXPECT_EQ(here(kExtent), 5);
}

// Its hosts may have written there since. Mutation: forget_origins() leaves unchanged_ alone.
TEST_F(OwnLossTest, NothingIsMissingAtATargetThatWasSplitSinceItCameFromThere) {
  begin();
  lose_first();
  ASSERT_TRUE(finish(volume.restore_step(one.leg, 0)));
  leave(one);
  core().inside([&] { one.leg.forget_origins(); });
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(tracker.flush(volume.own_debtor())));
  EXPECT_FALSE(is_missing(0));
}

// Its target will be another volume in a moment. Mutation: holds() does not look at the seal.
TEST_F(OwnLossTest, NothingBecomesMissingAtATargetWhoseCutIsAboutToBeDecided) {
  begin();
  ASSERT_TRUE(write(0, 4096, 2));
  core().inside([&] {
    one.leg.arm(Epoch(2));
    one.leg.seal();
  });
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(volume.flush()));
  EXPECT_FALSE(is_missing(0));
  EXPECT_TRUE(has_bit(0));
}

// A slow read of the target: meanwhile the region has come back, the target was split, and its own
// hosts have written. Mutation: read_blocks() does not look again after it has read a target.
TEST_F(OwnLossTest, AReadOfATargetFromWhichTheRegionCameBackMeanwhileIsReadAgainHere) {
  begin();
  set_missing(0, kExtent);
  one.backing.hold_reads = true;
  const rt::Buffer block = core().buffers().get(kBlockBytes);
  const auto read = world.start(core(), volume.read(0, block.span()));
  world.run();
  ASSERT_FALSE(read->has_value());
  core().inside([&] { tracker.begin_copy(kMissing, {0, kExtent}).done(); });
  ASSERT_TRUE(finish(one.backing.write(0, filled(kExtent, 9))));
  world.reactor(1).inside([&] { one.backing.release(); });
  world.run();
  ASSERT_TRUE(read->has_value() && **read);
  EXPECT_EQ(static_cast<int>(block.span()[0]), 1);
}

// It came back from one leg, was lost again, and is missing at the one that held it all the time:
// what is written then is there alone. Mutation: write_missing_back() ends after the first pass.
TEST_F(OwnLossTest, AMarkOfAnEarlierHolderLeavesTheDiskBeforeTheFlushIsAnswered) {
  core().inside([&] { join(two, kBits2, kMissing2); });
  mode(Mode::kSendWhereClear);
  core().inside([&] { tracker.set(kMissing2, {0, kExtent}); });
  ASSERT_TRUE(finish(tracker.write_back(kMissing2)));
  ASSERT_TRUE(finish(volume.restore_step(two.leg, 0)));
  backing.fail_flush = {Code::kFlushLost};
  ASSERT_TRUE(finish(volume.flush()));
  EXPECT_TRUE(is_missing(0));
  EXPECT_TRUE(is_missing_on_disk(0));
  EXPECT_EQ(store.disk[kMissing2.value()][0] & 1, 0u);
}

// Until then a start would find it nowhere. Mutation: forget_earlier_holders() does not ask
// is_pending().
TEST_F(OwnLossTest, AMarkOfAnEarlierHolderStaysUntilTheNewOneIsOnDisk) {
  core().inside([&] { join(two, kBits2, kMissing2); });
  mode(Mode::kSendWhereClear);
  core().inside([&] { tracker.set(kMissing2, {0, kExtent}); });
  ASSERT_TRUE(finish(tracker.write_back(kMissing2)));
  ASSERT_TRUE(finish(volume.restore_step(two.leg, 0)));
  store.fails = true;
  backing.fail_flush = {Code::kFlushLost};
  EXPECT_FALSE(finish(volume.flush()));
  store.fails = false;
  ASSERT_TRUE(finish(tracker.write_back(kMissing2)));
  EXPECT_NE(store.disk[kMissing2.value()][0] & 1, 0u);
}

}  // namespace
}  // namespace duplex::volume
