// The judge of cuts is judged: each rule accepts what it must and refuses what it must.
#include "sim/cut_judge.h"

#include <gtest/gtest.h>

namespace duplex::simtest {
namespace {

// Two volumes, A and B, of two sectors; sector 0 unless said otherwise. Tags are small numbers.
class CutJudgeTest : public testing::Test {
 protected:
  Time start(CutJudge::Source v, Tag tag, uint64_t sector = 0) {
    judge.begin_write(++now, v, sector, 1, tag);
    return now;
  }
  void end(CutJudge::Source v, Time started, bool success = true) {
    judge.end_write(++now, v, started, success);
  }
  void write(CutJudge::Source v, Tag tag, uint64_t sector = 0) { end(v, start(v, tag, sector)); }
  void read(CutJudge::Source v, Tag tag, uint64_t sector = 0) {
    std::vector<std::byte> bytes(kSector);
    Oracle::image_of(tag, sector, bytes);
    judge.seen(++now, v, sector, bytes);
  }
  void ask() { asked = ++now; }
  void answer() { cut = judge.freeze(asked, ++now, std::vector{a, b}); }
  static CutJudge::Target target(CutJudge::Source v, Tag first, Tag second = 0) {
    return {"S" + std::to_string(v), v, {first, second}};
  }
  // "" when the images are a cut: what A's target holds in its sectors, what B's does.
  std::string holding(Tag in_a, Tag in_b) {
    return CutJudge::judge(cut, std::vector{target(a, in_a), target(b, in_b)});
  }

  CutJudge judge;
  const CutJudge::Source a = judge.add("A", 2), b = judge.add("B", 2);
  Time now = 0;
  Time asked = 0;
  CutJudge::Cut cut;
};

TEST_F(CutJudgeTest, APrefixOfDependentWritesIsACut) {
  ask();
  write(a, 1);
  write(b, 2);
  write(a, 3);
  answer();
  EXPECT_EQ(holding(0, 0), "");
  EXPECT_EQ(holding(1, 0), "");
  EXPECT_EQ(holding(1, 2), "");
  EXPECT_EQ(holding(3, 2), "");
}

TEST_F(CutJudgeTest, AWriteWithoutTheOneItDependsOnIsAViolation) {
  ask();
  write(a, 1);
  write(b, 2);
  write(a, 3);
  answer();
  EXPECT_NE(holding(0, 2), "");
  EXPECT_NE(holding(3, 0), "");
}

TEST_F(CutJudgeTest, WhatWasAcknowledgedBeforeTheSplitWasAskedForMustBeThere) {
  write(a, 1);
  ask();
  answer();
  EXPECT_NE(holding(0, 0), "");
  EXPECT_EQ(holding(1, 0), "");
}

TEST_F(CutJudgeTest, WhatBeganAfterTheAnswerMustNotBeThere) {
  const Time w = start(a, 1);
  ask();
  answer();
  judge.begin_write(++now, b, 0, 1, 2);
  EXPECT_EQ(holding(1, 0), "");
  EXPECT_NE(holding(1, 2), "");
  end(a, w);
}

TEST_F(CutJudgeTest, AWriteThatIsUnderWayMayBeThereOrNot) {
  start(a, 1);
  ask();
  write(b, 2);
  answer();
  EXPECT_EQ(holding(1, 2), "");
  EXPECT_EQ(holding(0, 2), "");
}

TEST_F(CutJudgeTest, AnUnacknowledgedWriteThatSomebodyReadMustComeWithWhatFollows) {
  ask();
  start(a, 1);
  read(a, 1);
  write(b, 2);
  answer();
  EXPECT_NE(holding(0, 2), "");
  EXPECT_EQ(holding(1, 2), "");
  EXPECT_EQ(holding(0, 0), "");
}

TEST_F(CutJudgeTest, AReadThatEndedAfterTheNextWriteBeganProvesNothing) {
  ask();
  start(a, 1);
  const Time w = start(b, 2);
  read(a, 1);
  end(b, w);
  answer();
  EXPECT_EQ(holding(0, 2), "");
}

TEST_F(CutJudgeTest, AFailedWriteMayBeThereOrNot) {
  ask();
  end(a, start(a, 1), false);
  write(b, 2);
  answer();
  EXPECT_EQ(holding(0, 2), "");
  EXPECT_EQ(holding(1, 2), "");
}

TEST_F(CutJudgeTest, OverwrittenIsAsGoodAsThere) {
  ask();
  write(a, 1);
  write(a, 2);
  write(b, 3);
  answer();
  EXPECT_EQ(holding(2, 3), "");
  EXPECT_NE(holding(1, 3), "");
}

TEST_F(CutJudgeTest, ConcurrentWritesOfOneSectorMayEndEitherWay) {
  const Time one = start(a, 1);
  const Time two = start(a, 2);
  end(a, one);
  end(a, two);
  ask();
  answer();
  EXPECT_EQ(holding(1, 0), "");
  EXPECT_EQ(holding(2, 0), "");
  EXPECT_NE(holding(0, 0), "");
}

TEST_F(CutJudgeTest, TheTargetsOfOneSourceHoldTheSameSet) {
  start(a, 1);
  ask();
  answer();
  const auto both = [&](Tag one, Tag other) {
    return CutJudge::judge(cut, std::vector{target(a, one), target(b, 0), target(a, other)});
  };
  EXPECT_EQ(both(1, 1), "");
  EXPECT_EQ(both(0, 0), "");
  EXPECT_NE(both(1, 0), "");
  EXPECT_NE(both(0, 1), "");
}

TEST_F(CutJudgeTest, EverySectorIsJudged) {
  write(a, 1, 1);
  ask();
  answer();
  EXPECT_EQ(CutJudge::judge(cut, std::vector{target(a, 0, 1)}), "");
  EXPECT_NE(CutJudge::judge(cut, std::vector{target(a, 0, 0)}), "");
}

TEST_F(CutJudgeTest, ForeignBytesAreAViolation) {
  ask();
  answer();
  CutJudge::Target foreign = target(a, 0);
  foreign.image[1] = std::nullopt;
  EXPECT_NE(CutJudge::judge(cut, std::vector{foreign}), "");
  EXPECT_NE(holding(77, 0), "");
}

// Zeroes were there at the beginning and have been written again: either may be meant, so they
// date nothing.
TEST_F(CutJudgeTest, ZeroesThatMayBeOldOnesSetNoTime) {
  ask();
  write(a, 1);
  start(b, 0);
  answer();
  EXPECT_EQ(holding(0, 0), "");
  EXPECT_EQ(holding(1, 0), "");
}

TEST_F(CutJudgeTest, ZeroesDoNotHideALostWrite) {
  write(a, 0);
  write(a, 1);
  ask();
  answer();
  EXPECT_NE(holding(0, 0), "");
}

TEST_F(CutJudgeTest, AfterAPowerCutNothingOlderIsKnownUntilItIsReadAgain) {
  write(a, 1);
  judge.stopped(++now, true);
  ask();
  answer();
  EXPECT_EQ(holding(0, 0), "");
  read(a, 1);
  ask();
  answer();
  EXPECT_NE(holding(0, 0), "");
}

TEST_F(CutJudgeTest, AKillLosesNothing) {
  write(a, 1);
  judge.stopped(++now, false);
  ask();
  answer();
  EXPECT_NE(holding(0, 0), "");
}

TEST_F(CutJudgeTest, ACutThatWasAnsweredBeforeAPowerCutIsNotExcusedByIt) {
  write(a, 1);
  ask();
  answer();
  judge.stopped(++now, true);
  EXPECT_NE(holding(0, 0), "");
  EXPECT_EQ(holding(1, 0), "");
}

TEST_F(CutJudgeTest, ALossOfOneVolumeExcusesItAlone) {
  write(a, 1);
  write(b, 2);
  judge.loss(a);
  ask();
  answer();
  EXPECT_EQ(holding(0, 2), "");
  EXPECT_NE(holding(1, 0), "");
}

TEST_F(CutJudgeTest, TheSuccessOfAWriteThatWasUnderWayAtALossProvesNothing) {
  const Time w = start(a, 1);
  judge.loss(a);
  end(a, w);
  ask();
  answer();
  EXPECT_EQ(holding(0, 0), "");
}

// Mutation: loss() leaves is_untold alone.
TEST_F(CutJudgeTest, WhatIsWrittenBetweenALossAndTheFlushThatTellsOfItMayBeLostWithIt) {
  const uint64_t before = judge.losses(a);
  judge.loss(a);
  write(a, 1);
  judge.flushed(a, before, true);
  ask();
  answer();
  EXPECT_EQ(holding(0, 0), "") << "a flush that began before the loss tells nothing";
}

// Mutation: flushed() does nothing.
TEST_F(CutJudgeTest, AfterTheFlushThatToldOfALossWritesCountAgain) {
  judge.loss(a);
  judge.flushed(a, judge.losses(a), true);
  write(a, 1);
  ask();
  answer();
  EXPECT_NE(holding(0, 0), "");
}

// Mutations: flushed() takes no loss; it leaves the volume untold.
TEST_F(CutJudgeTest, AFlushThatFailedHasLostWhatWasWrittenBeforeAndNothingAfterIt) {
  write(a, 1);
  judge.flushed(a, judge.losses(a), false);
  ask();
  answer();
  EXPECT_EQ(holding(0, 0), "");
  write(a, 2);
  ask();
  answer();
  EXPECT_NE(holding(0, 0), "");
}

TEST_F(CutJudgeTest, AfterARestoreTheImageIsWhatMustBeThere) {
  write(a, 1);
  write(a, 2);
  judge.begin_replace(++now, a, {Tag{1}, Tag{0}});
  judge.end_write(now + 1, a, now, true);
  now += 2;
  ask();
  answer();
  EXPECT_EQ(holding(1, 0), "");
  EXPECT_NE(holding(2, 0), "");
}

TEST_F(CutJudgeTest, WhatWasSettledIsKnownAndTheRestForgotten) {
  write(a, 1);
  judge.stopped(++now, true);
  judge.settle(a, {Tag{0}, Tag{0}});
  ask();
  answer();
  EXPECT_EQ(holding(0, 0), "");
  EXPECT_NE(holding(1, 0), "");
}

}  // namespace
}  // namespace duplex::simtest
