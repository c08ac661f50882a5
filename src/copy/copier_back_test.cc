// A copy back: what is missing at the source, from the target of a leg to the own backing.
#include <gtest/gtest.h>

#include "copy/copier.h"
#include "copy/copier_test_kit.h"

namespace duplex::copy {
namespace {

using End = Copier::End;
using Mode = volume::TargetLeg::Mode;
using State = Copier::State;
using testing::kExtent;
using testing::kMissing;
using testing::Pair;

// The target has what a host wrote there; the source is to have it again.
class Restore : public ::testing::Test {
 protected:
  rt::Task<Result<void>> write_there_task(uint64_t offset, size_t bytes, int value) {
    const rt::Buffer buffer = pair.world.source.buffers().get(bytes);
    std::memset(buffer.data(), value, bytes);
    co_return co_await pair.target.forward_write(Epoch(1), offset, buffer.span());
  }
  void write_there(uint64_t offset, size_t bytes, int value) {
    ASSERT_TRUE(pair.world.finish(write_there_task(offset, bytes, value)));
  }
  void begin(ByteRange missing, Copier::Start start = {}) {
    ASSERT_TRUE(pair.world.finish(pair.source.flush()));
    pair.world.source.inside([&] { pair.tracker.set(kMissing, missing); });
    ASSERT_TRUE(pair.world.finish(pair.tracker.write_back(kMissing)));
    pair.p.reads = pair.p.written_bytes = pair.s.written_bytes = pair.p.flushes = pair.s.reads = 0;
    pair.world.source.inside([&] {
      pair.copier.emplace(pair.source, way_back(pair.source, pair.leg), pair.tracker, start);
    });
    pair.ended = pair.world.start(pair.copier->run());
  }
  const volume::ChangeMap& missing() const { return pair.leg.missing(); }

  Pair pair;
};

// Mutation: the copier flushes the leg in place of the own backing (the words stay on disk).
TEST_F(Restore, MovesWhatIsMissingToTheOwnBackingAndWritesNothingElse) {
  pair.write(0, 2 * kExtent, 9);
  write_there(0, 3 * kExtent, 1);
  write_there(100 * kExtent, kExtent, 2);
  begin({0, 4 * kMiB});
  EXPECT_EQ(pair.finish(), End::kDone);
  EXPECT_EQ(pair.p.written_bytes, 3 * kExtent);
  EXPECT_EQ(pair.s.written_bytes, 0u);
  EXPECT_EQ(pair.p.value(0), 1);
  EXPECT_EQ(pair.p.value(100 * kExtent / kBlockBytes), 0);
  EXPECT_TRUE(missing().empty());
  EXPECT_FALSE(pair.tracker.is_pending(kMissing));
  EXPECT_TRUE(pair.leg.bits().empty()) << "a bit beside it goes with it";
  EXPECT_EQ(pair.copier->progress().done_bytes, 4 * kMiB);
  EXPECT_EQ(pair.copier->progress().moved_bytes, 3 * kExtent);
}

// Mutation: Back::is_open() looks at the mode.
TEST_F(Restore, GoesOnWhenItsLegLeavesOrIsInAnyMode) {
  write_there(0, 4 * kMiB, 1);
  pair.world.source.inside([&] { pair.leg.set_mode(Mode::kSend); });
  begin({0, 4 * kMiB}, {.is_paused = true});
  pair.world.source.inside([&] { pair.leg.leave(Error(Code::kTimeout)); });
  pair.copier->resume();
  // The leg's callback is the owner's to heed; here it told the copier.
  EXPECT_EQ(pair.finish(), End::kLeft);
  begin({0, 4 * kMiB});
  EXPECT_EQ(pair.finish(), End::kDone);
  pair.expect_equal();
}

// Mutation: Back::act() says "read".
TEST_F(Restore, ATargetThatCannotBeReadStallsLastAndNamesTheRegion) {
  write_there(0, 4 * kMiB, 1);
  pair.s.bad = {17, 40};
  begin({0, 4 * kMiB});
  pair.world.run_for(rt::kMillisecond);
  EXPECT_EQ(pair.copier->state(), State::kStalled);
  EXPECT_EQ(missing().count(), 2u) << "all others are back";
  const std::string reason = pair.copier->progress().reason;
  EXPECT_NE(reason.find("volume p cannot be brought back at 2621440"), std::string::npos) << reason;
  pair.world.run_for(10 * rt::kSecond);
  EXPECT_EQ(missing().count(), 2u);
  pair.s.bad.clear();
  EXPECT_EQ(pair.finish(), End::kDone);
  pair.expect_equal();
}

// Mutation: bring_run_back() clears the bits of a write that failed.
TEST_F(Restore, AnOwnBackingThatCannotBeWrittenStallsAndNothingIsLost) {
  write_there(0, 4 * kMiB, 1);
  pair.p.inner.fail_write = Code::kMediumWrite;
  begin({0, 4 * kMiB});
  pair.world.run_for(10 * rt::kSecond);
  EXPECT_EQ(pair.copier->state(), State::kStalled);
  EXPECT_EQ(missing().count(), 64u);
  pair.p.inner.fail_write.reset();
  EXPECT_EQ(pair.finish(), End::kDone);
  pair.expect_equal();
}

// Mutation: bring_run_back() adds nothing to the window.
TEST_F(Restore, AnOwnFlushThatFailsPutsBackWhatItLostAndItComesBackAgain) {
  write_there(0, 4 * kMiB, 1);
  begin({0, 4 * kMiB}, {.is_paused = true});
  pair.p.inner.fail_flush = {Code::kFlushLost};
  pair.tell([](Copier& copier) { copier.resume(); });
  pair.world.run_for(rt::kMillisecond * 500);
  EXPECT_EQ(pair.copier->state(), State::kStalled);
  EXPECT_EQ(missing().count(), 64u);
  EXPECT_EQ(pair.finish(), End::kDone);
  EXPECT_EQ(pair.p.written_bytes, 8 * kMiB);
  EXPECT_TRUE(pair.leg.bits().empty());
  pair.expect_equal();
}

// Mutation: next_look() has no time for it.
TEST_F(Restore, AForwardCopyWaitsForRegionsThatAreMissingAtItsLeg) {
  write_there(0, kExtent, 1);
  pair.write(kExtent, kExtent, 2);
  pair.world.source.inside([&] { pair.tracker.set(kMissing, {0, kExtent}); });
  pair.set({0, kExtent});
  pair.begin();
  pair.world.run_for(10 * rt::kSecond);
  EXPECT_FALSE(pair.ended->has_value());
  EXPECT_EQ(pair.leg.bits().count(), 1u);
  ASSERT_TRUE(pair.world.finish(pair.source.restore_step(pair.leg, 0)));
  EXPECT_EQ(pair.finish(), End::kDone);
  EXPECT_EQ(pair.p.value(0), 1);
  pair.expect_equal();
}

// Pause, rate and the rest are the copier's; a host beside it writes to what is missing. Mutation:
// restore_step() does not look at the map again under its lock.
TEST_F(Restore, BesideAHostThatWritesNothingIsPutBackOverIt) {
  write_there(0, 16 * kMiB, 1);
  pair.s.read_time = 200;
  begin({0, 16 * kMiB});
  int written = 0;
  for (uint64_t region = 255; region > 0 && !pair.ended->has_value(); region -= 5, ++written) {
    pair.write(region * kExtent, kBlockBytes, 5);
  }
  EXPECT_GT(written, 10);
  EXPECT_EQ(pair.finish(), End::kDone);
  for (uint64_t region = 0; region < 256; ++region) {
    const bool is_written = region % 5 == 0 && region > 0 && 255 - region < uint64_t{5} * written;
    constexpr uint64_t kBlocks = kRegionBytes / kBlockBytes;
    ASSERT_EQ(pair.p.value(region * kBlocks), is_written ? 5 : 1) << region;
    ASSERT_EQ(pair.p.value(region * kBlocks + 1), 1) << region;
    ASSERT_EQ(pair.s.value(region * kBlocks), 1) << "a restore leaves the target alone";
  }
}

// At any instant a region whose only copy is the target's is missing on disk: whatever the own
// backing may hold after a power cut, it is the target's content, or the disk says missing.
// Mutation: bring_run_back() adds nothing to the window, and the copier flushes the leg.
TEST_F(Restore, APowerCutInTheMiddleOfAnythingLeavesWhatIsNotBackMissing) {
  write_there(0, 3 * kMiB, 1);
  begin({0, 3 * kMiB});
  while (!pair.ended->has_value()) {
    ASSERT_TRUE(pair.world.step(pair.world.now + rt::kSecond));
    for (uint64_t region = 0; region < 48; ++region) {
      constexpr uint64_t kBlocks = kRegionBytes / kBlockBytes;
      bool is_back = true;
      for (uint64_t block = region * kBlocks; block < (region + 1) * kBlocks; ++block) {
        for (const int value : pair.p.maybe(block)) is_back &= value == 1;
      }
      if (is_back) continue;
      pair.store.each_future([&](const testing::WordStore::Disk& disk) {
        const auto word = disk.missing.find(region / 64);
        ASSERT_TRUE(word != disk.missing.end() && (word->second >> region % 64 & 1) != 0) << region;
      });
    }
  }
  EXPECT_EQ(**pair.ended, End::kDone);
}

}  // namespace
}  // namespace duplex::copy
