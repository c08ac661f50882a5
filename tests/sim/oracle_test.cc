// The judge is judged: each rule of the oracle accepts what it must and refuses what it must.
#include "sim/oracle.h"

#include <gtest/gtest.h>

namespace duplex::simtest {
namespace {

// Drives an oracle of 8 sectors by hand; image(w) is what a read of sector 0 returns after write w.
class OracleTest : public testing::Test {
 protected:
  uint32_t write(bool success = true, bool fua = false) {
    const uint32_t id = start(fua);
    end(id, success);
    return id;
  }
  uint32_t start(bool fua = false) {
    const uint32_t id = oracle.begin_write(++now, 0, 1, {.fua = fua});
    images[id].resize(kSector);
    oracle.fill(id, images[id]);
    return id;
  }
  void end(uint32_t id, bool success = true) { oracle.end_write(++now, id, success); }
  void flush(bool success = true) {
    const Time issued = ++now;
    oracle.begin_flush(issued);
    oracle.end_flush(++now, issued, success);
  }
  void read(const std::vector<std::byte>& bytes) {
    const Time started = ++now;
    oracle.begin_read(started);
    oracle.end_read(++now, started, 0, bytes);
  }
  void read(uint32_t id) { read(images.at(id)); }
  bool bad() const { return !oracle.violation().empty(); }

  Oracle oracle{7, 8};
  Time now = 0;
  std::unordered_map<uint32_t, std::vector<std::byte>> images;
  const std::vector<std::byte> zeroes = std::vector<std::byte>(kSector);
};

TEST_F(OracleTest, AReadReturnsTheLastWrite) {
  write();
  const uint32_t second = write();
  read(second);
  EXPECT_FALSE(bad()) << oracle.violation();
}

TEST_F(OracleTest, AnOverwrittenValueIsAViolation) {
  const uint32_t first = write();
  write();
  read(first);
  EXPECT_TRUE(bad());
}

TEST_F(OracleTest, ConcurrentWritesMayEndInEitherOrderButNotGoBack) {
  const uint32_t a = start();
  const uint32_t b = start();
  end(a);
  end(b);
  read(a);
  EXPECT_FALSE(bad());
  read(a);
  EXPECT_FALSE(bad());
}

TEST_F(OracleTest, AReadThatGoesBackInTimeIsAViolation) {
  const uint32_t a = write();
  const uint32_t b = start();
  read(b);
  EXPECT_FALSE(bad());
  read(a);
  EXPECT_TRUE(bad());
}

TEST_F(OracleTest, BytesNobodyWroteAreAViolation) {
  read(std::vector<std::byte>(kSector, std::byte{0x5a}));
  EXPECT_TRUE(bad());
}

TEST_F(OracleTest, DataOfAnotherSectorIsAViolation) {
  const uint32_t a = write();
  const Time started = ++now;
  oracle.begin_read(started);
  oracle.end_read(++now, started, 1, images[a]);
  EXPECT_TRUE(bad());
}

TEST_F(OracleTest, AFailedWriteMayOrMayNotBeThere) {
  const uint32_t a = write();
  const uint32_t b = write(false);
  read(a);
  EXPECT_FALSE(bad());
  read(b);
  EXPECT_FALSE(bad());
}

TEST_F(OracleTest, AfterAPowerCutAnUnflushedWriteMayBeGone) {
  const uint32_t a = write();
  flush();
  write();
  oracle.power_cut(++now);
  read(a);
  EXPECT_FALSE(bad()) << oracle.violation();
}

TEST_F(OracleTest, AfterAPowerCutAFlushedWriteMustBeThere) {
  const uint32_t a = write();
  write();
  flush();
  oracle.power_cut(++now);
  read(a);
  EXPECT_TRUE(bad());
}

TEST_F(OracleTest, FuaIsDurableWithoutAFlush) {
  write();
  write(true, true);
  oracle.power_cut(++now);
  read(zeroes);
  EXPECT_TRUE(bad());
}

TEST_F(OracleTest, AFlushIssuedBeforeTheReplyDoesNotCoverTheWrite) {
  const uint32_t a = start();
  const Time issued = ++now;
  oracle.begin_flush(issued);
  end(a);
  oracle.end_flush(++now, issued, true);
  oracle.power_cut(++now);
  read(zeroes);
  EXPECT_FALSE(bad()) << oracle.violation();
}

TEST_F(OracleTest, AfterAPowerCutTheContentIsOneConstant) {
  const uint32_t a = write();
  const uint32_t b = write();
  oracle.power_cut(++now);
  read(a);
  EXPECT_FALSE(bad());
  read(b);
  EXPECT_TRUE(bad());
}

TEST_F(OracleTest, AKillKeepsWhatWasAnswered) {
  write();
  write();
  oracle.killed(++now);
  read(zeroes);
  EXPECT_TRUE(bad());
}

TEST_F(OracleTest, AfterACacheLossTheNextFlushMustFail) {
  write();
  oracle.cache_lost(++now, true);
  flush();
  EXPECT_TRUE(bad());
}

TEST_F(OracleTest, AfterACacheLossThatWasToldTheNextFlushMayGoWell) {
  const uint32_t a = write();
  flush();
  write();
  oracle.cache_lost(++now, true);
  flush(false);
  flush();
  read(a);
  EXPECT_FALSE(bad()) << oracle.violation();
}

TEST_F(OracleTest, AFailedWriteWithFuaIsNotTheFlushThatTellsOfALoss) {
  write();
  oracle.cache_lost(++now, true);
  write(false, true);
  flush();
  EXPECT_TRUE(bad());
}

TEST_F(OracleTest, AFlushMayGoWellWhenFuaWasInFlightAtTheLoss) {
  write();
  const uint32_t fua = start(true);
  oracle.cache_lost(++now, true);
  flush();
  end(fua, false);
  EXPECT_FALSE(bad()) << oracle.violation();
}

TEST_F(OracleTest, AFailedFlushMakesNothingDurableLater) {
  write();
  flush(false);
  flush();
  oracle.power_cut(++now);
  read(zeroes);
  EXPECT_FALSE(bad()) << oracle.violation();
}

// Rule 6. Mutation: end_read() asks for no flush that fails.
TEST_F(OracleTest, WhatIsGivenUpWithoutALostCacheIsToldByTheNextFlush) {
  oracle.expect_told_losses();
  for (const bool is_told : {true, false}) {
    const uint32_t before = write();
    flush();
    write();
    read(before);
    EXPECT_FALSE(bad()) << oracle.violation();
    flush(!is_told);
    EXPECT_EQ(bad(), !is_told);
  }
}

// Mutation: end_read() does not ask what is unflushed.
TEST_F(OracleTest, WhatIsGivenUpWithoutALostCacheMayHaveBeenToldBefore) {
  oracle.expect_told_losses();
  const uint32_t before = write();
  flush();
  write();
  flush(false);
  const uint32_t other = oracle.begin_write(++now, 1, 1, {});
  end(other);
  read(before);
  flush();
  EXPECT_FALSE(bad()) << oracle.violation();
}

// Mutation: end_read() finds no fault with what rule 6 does not explain, either.
TEST_F(OracleTest, NothingThatWasFlushedIsGivenUp) {
  oracle.expect_told_losses();
  const uint32_t before = write();
  write();
  flush();
  read(before);
  EXPECT_TRUE(bad());
}

// A restore: all of the volume becomes what another one holds.
class OracleRestoreTest : public OracleTest {
 protected:
  std::vector<std::optional<Tag>> image_with(uint32_t id) {
    std::vector<std::optional<Tag>> image(8, Tag{0});
    image[0] = Oracle::tag_of(images.at(id), 0);
    return image;
  }
};

TEST_F(OracleRestoreTest, AfterARestoreTheOldWriteIsBackAndTheNewOneGone) {
  const uint32_t old = write();
  const uint32_t later = write();
  const auto image = image_with(old);
  end(oracle.begin_replace(++now, image));
  read(old);
  EXPECT_FALSE(bad()) << oracle.violation();
  read(later);
  EXPECT_TRUE(bad());
}

TEST_F(OracleRestoreTest, ARestoreThatWasAnsweredSurvivesAPowerCut) {
  const uint32_t old = write();
  const uint32_t later = write(true, true);
  end(oracle.begin_replace(++now, image_with(old)));
  oracle.power_cut(++now);
  read(later);
  EXPECT_TRUE(bad());
}

TEST_F(OracleRestoreTest, ARestoreThatACrashCutOffMayHaveHappenedOrNot) {
  const uint32_t old = write();
  const uint32_t later = write(true, true);
  oracle.begin_replace(++now, image_with(old));
  oracle.power_cut(++now);
  read(later);
  EXPECT_FALSE(bad()) << oracle.violation();
}

TEST_F(OracleRestoreTest, AWriteDuringTheRestoreMayBeUnderItOrOverIt) {
  const uint32_t old = write();
  const uint32_t restore = oracle.begin_replace(++now, image_with(old));
  const uint32_t meanwhile = write();
  end(restore);
  read(meanwhile);
  EXPECT_FALSE(bad()) << oracle.violation();
  write();
  read(meanwhile);
  EXPECT_TRUE(bad());
}

TEST_F(OracleRestoreTest, ARebasedVolumeHoldsThatAndNothingElse) {
  const uint32_t old = write();
  const uint32_t later = write();
  oracle.rebase(image_with(old));
  oracle.power_cut(++now);
  read(old);
  EXPECT_FALSE(bad()) << oracle.violation();
  read(later);
  EXPECT_TRUE(bad());
}

TEST_F(OracleRestoreTest, AWriteFromBeforeARebaseEndsForNobody) {
  const uint32_t old = write();
  const uint32_t late = start();
  oracle.rebase(image_with(old));
  end(late);
  read(late);
  EXPECT_TRUE(bad());
}

}  // namespace
}  // namespace duplex::simtest
