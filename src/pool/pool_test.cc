// The pool as a whole, on disks that forget, fail and go away.
#include "pool/pool.h"

#include <gtest/gtest.h>

#include "format/device_label.h"
#include "pool/test_world.h"

namespace duplex::pool {
namespace {

using test::Rig;

constexpr uint64_t kDisk = 6 * kMiB;
constexpr uint64_t kExtent = Rig::kExtent;
constexpr std::byte kZero{0};

TEST(Pool, AWriteIsReadBackAndAHoleReadsAsZeroes) {
  Rig rig(1);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(1, 10 * kMiB));
  EXPECT_TRUE(rig.write(1, 3 * kExtent, std::byte(7)));
  EXPECT_EQ(rig.read(1, 3 * kExtent), std::byte(7));
  EXPECT_EQ(rig.read(1, 3 * kExtent + kBlockBytes), kZero);
  EXPECT_EQ(rig.read(1, 0), kZero);
  EXPECT_EQ(rig.backings[1]->allocated_bytes(), kExtent);
  const auto run = rig.backings[1]->run_at(0);
  EXPECT_FALSE(run.mapped);
  EXPECT_EQ(run.end, 3 * kExtent);
}

TEST(Pool, ALongWriteOverManyExtentsAndDevicesIsReadBack) {
  Rig rig(2);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.add("/d2", false, kDisk));
  ASSERT_TRUE(rig.create(1, 10 * kMiB));
  for (uint64_t le = 0; le < 40; le += 2) ASSERT_TRUE(rig.write(1, le * kExtent, std::byte(1)));
  ASSERT_TRUE(rig.write(1, kBlockBytes, std::byte(9), 39 * kExtent));
  EXPECT_EQ(rig.read(1, 0), std::byte(1));
  for (uint64_t at = kBlockBytes; at < 39 * kExtent; at += kExtent / 2) {
    EXPECT_EQ(rig.read(1, at), std::byte(9));
  }
  EXPECT_TRUE(rig.flush(1));
}

TEST(Pool, WhatWasFlushedSurvivesAPowerCut) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Rig rig(seed);
    ASSERT_TRUE(rig.start());
    ASSERT_TRUE(rig.add("/d1", false, kDisk));
    ASSERT_TRUE(rig.create(1, kMiB));
    ASSERT_TRUE(rig.write(1, 0, std::byte(5)));
    ASSERT_TRUE(rig.flush(1));
    rig.power_cut();
    ASSERT_TRUE(rig.start());
    rig.attach_all();
    EXPECT_EQ(rig.read(1, 0), std::byte(5));
  }
}

TEST(Pool, AFlushAfterAKillCoversWhatWasWrittenBeforeIt) {
  Rig rig(3);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB));
  ASSERT_TRUE(rig.write(1, 0, std::byte(5)));
  rig.power_cut(false);
  ASSERT_TRUE(rig.start());
  rig.attach_all();
  ASSERT_TRUE(rig.flush(1));
  rig.power_cut();
  ASSERT_TRUE(rig.start());
  rig.attach_all();
  EXPECT_EQ(rig.read(1, 0), std::byte(5));
}

TEST(Pool, AFlushThatFailsAtTheStartIsToldByTheFirstFlushOfEachVolumeThatMayHaveLostData) {
  Rig rig(31);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB));
  ASSERT_TRUE(rig.create(2, kMiB));
  ASSERT_TRUE(rig.write(1, 0, std::byte(5)));
  rig.power_cut(false);
  rig.world.disks["/d1"]->failing_flushes = 1;
  ASSERT_TRUE(rig.start());
  rig.world.settle(3 * rt::kSecond);
  ASSERT_EQ(rig.pool->device("d1")->state, DeviceState::kOnline) << "a later attempt succeeds";
  rig.attach_all();
  const auto first = rig.flush(1);
  ASSERT_FALSE(first) << "what was written before the kill may be gone";
  EXPECT_EQ(first.error().code(), Code::kFlushLost);
  EXPECT_TRUE(rig.flush(1)) << "told once";
  EXPECT_TRUE(rig.flush(2)) << "it had nothing there";
}

TEST(Pool, AReleasedExtentIsZeroDurablyBeforeItHasANewOwner) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Rig rig(seed);
    ASSERT_TRUE(rig.start());
    ASSERT_TRUE(rig.add("/d1", false, 3 * kMiB));
    const uint64_t all = rig.pool->usage().free_bytes;
    ASSERT_TRUE(rig.create(1, all));
    ASSERT_TRUE(rig.write(1, 0, std::byte(0x5e), all));
    ASSERT_TRUE(rig.flush(1));
    ASSERT_TRUE(rig.create(2, all));
    ASSERT_TRUE(rig.zero(1, {0, all / 2}));
    // Only released extents are left: these writes wait for them to be clean.
    for (uint64_t at = 0; at < all / 2; at += kExtent) {
      const auto written = rig.write(2, at, std::byte(1));
      ASSERT_TRUE(written) << written.error().describe();
    }
    rig.power_cut();
    ASSERT_TRUE(rig.start());
    rig.attach_all();
    for (uint64_t at = 0; at < all; at += kBlockBytes) {
      const auto got =
          rig.world.run(Rig::bytes_on(rig.core(2), rig.world.control(), *rig.backings[2], at));
      ASSERT_TRUE(got);
      EXPECT_FALSE(got->contains(std::byte(0x5e))) << "a byte of the earlier owner at " << at;
    }
  }
}

TEST(Pool, AReleasedExtentStaysAsItIsUntilTheLastReadOfTheOldMapHasEnded) {
  Rig rig(16);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, 3 * kMiB));
  const uint64_t all = rig.pool->usage().free_bytes;
  ASSERT_TRUE(rig.create(1, all));
  ASSERT_TRUE(rig.create(2, all));
  ASSERT_TRUE(rig.write(1, 0, std::byte(7), all));
  rig.world.hold = [](const rt::FileOp& op) { return op.kind == rt::FileOp::Kind::kRead; };
  rt::TaskGroup group(rig.world.control());
  std::optional<Result<std::set<std::byte>>> read;
  rig.world.start(group, Rig::bytes_on(rig.core(1), rig.world.control(), *rig.backings[1], 0),
                  read);
  rig.world.settle(rt::kMillisecond);
  ASSERT_TRUE(rig.zero(1, {0, kExtent}));
  rig.world.settle(rt::kSecond);
  EXPECT_EQ(rig.write(2, 0, std::byte(9)).error().code(), Code::kNoSpace);
  rig.world.hold = nullptr;
  rig.world.settle(rt::kSecond);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(**read, std::set<std::byte>{std::byte(7)}) << "not what came later";
  EXPECT_TRUE(rig.write(2, 0, std::byte(9)));
}

TEST(Pool, ADiskWithOldBytesIsCleanedAheadOfUse) {
  Rig rig(4);
  auto& disk = rig.world.add_disk("/sda", kDisk, true);
  disk.fill("secret! ");
  ASSERT_TRUE(rig.start());
  const auto refused = rig.add("/sda");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kState);
  EXPECT_NE(refused.error().next().find("--overwrite"), std::string_view::npos);
  ASSERT_TRUE(rig.add("/sda", true));
  ASSERT_TRUE(rig.create(1, 3 * kMiB, true));
  for (uint64_t at = 0; at < 3 * kMiB; at += kBlockBytes) EXPECT_EQ(rig.read(1, at), kZero);
  rig.power_cut();
  ASSERT_TRUE(rig.start());
  rig.attach_all();
  for (uint64_t at = 0; at < 3 * kMiB; at += kBlockBytes) EXPECT_EQ(rig.read(1, at), kZero);
}

TEST(Pool, ARefusedDeviceIsLeftAsItWas) {
  Rig rig(5);
  auto& disk = rig.world.add_disk("/data", kDisk);
  disk.now[1080] = disk.durable[1080] = std::byte(0x53);  // ext4: 0xef53 at 1080
  disk.now[1081] = disk.durable[1081] = std::byte(0xef);
  const auto before = disk.now;
  ASSERT_TRUE(rig.start());
  EXPECT_FALSE(rig.add("/data"));
  EXPECT_EQ(disk.now, before);
  EXPECT_FALSE(disk.locked);
  EXPECT_FALSE(rig.add("/tiny", false, kMiB));
  EXPECT_FALSE(rig.world.disks.contains("/tiny"));
  EXPECT_FALSE(rig.add("/none"));
  rig.store->fail_commits = true;
  EXPECT_FALSE(rig.add("/made", false, kDisk));
  EXPECT_FALSE(rig.world.disks.contains("/made"));
}

TEST(Pool, AFullPoolSaysSoAndTakesNothing) {
  Rig rig(6);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, 3 * kMiB));
  const uint64_t all = rig.pool->usage().free_bytes;
  ASSERT_TRUE(rig.create(1, 2 * all));
  const auto result = rig.write(1, 0, std::byte(1), all + kExtent);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::kNoSpace);
  EXPECT_EQ(rig.pool->usage().free_bytes, all);
  ASSERT_TRUE(rig.write(1, 0, std::byte(1), all));
  EXPECT_EQ(rig.events.count("pool_95"), 1u);
  ASSERT_TRUE(rig.zero(1, {0, all / 2}));
  ASSERT_TRUE(rig.write(1, all, std::byte(2)));
  ASSERT_TRUE(rig.write(1, 0, std::byte(1), all / 2 - kExtent));
  EXPECT_EQ(rig.events.count("pool_95"), 2u);
}

TEST(Pool, AFailedFlushFailsTheFlushOfEachBackingWithUnflushedWritesOnce) {
  Rig rig(7);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  for (uint16_t v = 1; v <= 3; ++v) ASSERT_TRUE(rig.create(v, kMiB));
  for (uint16_t v = 1; v <= 3; ++v) ASSERT_TRUE(rig.write(v, 0, std::byte(1)));
  for (uint16_t v = 1; v <= 3; ++v) ASSERT_TRUE(rig.flush(v));
  ASSERT_TRUE(rig.write(1, 0, std::byte(2)));
  ASSERT_TRUE(rig.write(2, 0, std::byte(2)));
  rig.world.disks["/d1"]->failing_flushes = 1;
  EXPECT_FALSE(rig.flush(1));
  const auto second = rig.flush(2);
  ASSERT_FALSE(second) << "its write went with the cache as well";
  EXPECT_EQ(second.error().code(), Code::kFlushLost);
  EXPECT_TRUE(rig.flush(3)) << "it had nothing to lose";
  EXPECT_TRUE(rig.flush(1));
  EXPECT_TRUE(rig.flush(2));
  EXPECT_EQ(rig.pool->device("d1")->state, DeviceState::kFailing);
  EXPECT_EQ(rig.events.count("device_failing"), 1u);
}

TEST(Pool, AWriteThatEndsDuringAFlushThatFailsMakesTheNextOneFailAsWell) {
  Rig rig(17);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB));
  ASSERT_TRUE(rig.write(1, 0, std::byte(1)));
  ASSERT_TRUE(rig.flush(1));
  ASSERT_TRUE(rig.write(1, 0, std::byte(2)));
  rig.world.hold = [](const rt::FileOp& op) { return op.kind == rt::FileOp::Kind::kFlush; };
  rt::TaskGroup group(rig.world.control());
  std::optional<Result<void>> first;
  rig.world.start(group, Rig::flush_on(rig.core(1), rig.world.control(), *rig.backings[1]), first);
  rig.world.settle(rt::kMillisecond);
  ASSERT_TRUE(rig.write(1, kBlockBytes, std::byte(3)));
  rig.world.disks["/d1"]->failing_flushes = 1;
  rig.world.hold = nullptr;
  rig.world.settle(rt::kSecond);
  ASSERT_TRUE(first.has_value());
  EXPECT_FALSE(*first);
  EXPECT_FALSE(rig.flush(1)) << "the second write went with the same cache";
  EXPECT_TRUE(rig.flush(1));
}

TEST(Pool, MapLogRecordsLostWithTheCacheAreWrittenAgain) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    Rig rig(seed);
    ASSERT_TRUE(rig.start());
    ASSERT_TRUE(rig.add("/d1", false, kDisk));
    ASSERT_TRUE(rig.create(1, kMiB));
    ASSERT_TRUE(rig.write(1, 0, std::byte(1)));
    rig.world.settle(rt::kSecond);  // the log record is written, not flushed
    rig.world.disks["/d1"]->failing_flushes = 1;
    EXPECT_FALSE(rig.flush(1));
    ASSERT_TRUE(rig.write(1, 0, std::byte(2)));
    ASSERT_TRUE(rig.flush(1));
    rig.power_cut();
    rig.tables = {};
    rig.tables.array.id = ArrayId(0x400104);
    test::TestStore fresh(rig.world, rig.tables);
    ASSERT_TRUE(rig.world.run(Pool::rebuild(rig.world, fresh, {"/d1"}, false)));
    ASSERT_TRUE(rig.start());
    rig.attach_all();
    EXPECT_EQ(rig.read(1, 0), std::byte(2));
  }
}

TEST(Pool, AnAbsentDeviceFailsItsExtentsOnlyAndComesBackByItself) {
  Rig rig(8);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.add("/d2", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB, false, "d1"));
  ASSERT_TRUE(rig.create(2, kMiB, false, "d2"));
  ASSERT_TRUE(rig.write(1, 0, std::byte(1)));
  ASSERT_TRUE(rig.write(2, 0, std::byte(2)));
  ASSERT_TRUE(rig.flush(2));
  rig.world.disks["/d1"]->gone = true;
  EXPECT_EQ(rig.read(1, 0).error().code(), Code::kMediumRead);
  rig.world.settle(3 * rt::kSecond);
  EXPECT_EQ(rig.pool->device("d1")->state, DeviceState::kAbsent);
  EXPECT_EQ(rig.write(1, 0, std::byte(3)).error().code(), Code::kMediumWrite);
  EXPECT_EQ(rig.zero(1, {0, kExtent}).error().code(), Code::kMediumWrite);
  EXPECT_EQ(rig.read(2, 0), std::byte(2));
  EXPECT_TRUE(rig.write(2, kExtent, std::byte(2)));
  EXPECT_TRUE(rig.flush(2));
  rig.world.disks["/d1"]->gone = false;
  rig.world.disks["/d1"]->lose_cache(nullptr);
  rig.world.disks["/d1"]->locked = false;
  rig.world.settle(3 * rt::kSecond);
  EXPECT_EQ(rig.pool->device("d1")->state, DeviceState::kOnline);
  EXPECT_EQ(rig.flush(1).error().code(), Code::kFlushLost) << "the write of before is lost";
  EXPECT_TRUE(rig.flush(1));
  EXPECT_EQ(rig.events.count("device_absent"), 1u);
  EXPECT_EQ(rig.events.count("device_back"), 1u);
}

TEST(Pool, AStartWithoutADeviceServesTheOthers) {
  Rig rig(9);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.add("/d2", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB, false, "d1"));
  ASSERT_TRUE(rig.write(1, 0, std::byte(1)));
  rig.stop();
  rig.world.disks["/d2"]->gone = true;
  ASSERT_TRUE(rig.start());
  rig.attach_all();
  EXPECT_EQ(rig.pool->device("d2")->state, DeviceState::kAbsent);
  EXPECT_EQ(rig.read(1, 0), std::byte(1));
  ASSERT_TRUE(rig.create(2, kMiB)) << "volumes are created while a device is away";
  rig.world.disks["/d2"]->gone = false;
  rig.world.settle(3 * rt::kSecond);
  EXPECT_EQ(rig.pool->device("d2")->state, DeviceState::kOnline);
}

TEST(Pool, AnOldCopyOfTheStoreIsRefused) {
  Rig rig(10);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB));
  const auto old = rig.tables;
  ASSERT_TRUE(rig.write(1, 0, std::byte(1)));
  rig.stop();
  rig.tables = old;
  const auto started = rig.start();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code(), Code::kStale);
  EXPECT_NE(started.error().next().find("--rebuild"), std::string_view::npos);
}

TEST(Pool, AThickVolumeLargerThanThePoolIsRefusedBeforeItsExtentsAreListed) {
  Rig rig(21);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  const auto refused = rig.create(1, rig.pool->usage().total_bytes + kExtent, true);
  EXPECT_EQ(refused.error().code(), Code::kNoSpace);
  EXPECT_NE(refused.error().message().find("does not fit into a pool of"), std::string_view::npos);
  ASSERT_TRUE(rig.create(1, kExtent, true));
  meta::VolumeRow row = rig.tables.volumes.at(VolumeNumber(1));
  row.size_bytes = rig.pool->usage().total_bytes + kExtent;
  const auto grown = rig.world.run(rig.pool->resize_backing(row.backing, row));
  EXPECT_NE(grown.error().message().find("does not fit into a pool of"), std::string_view::npos);
}

// Found by the simulator (seed 10305 at that time): the store failed over a TRIM, writes to the
// extent went on, and the next start found it released: what was written and flushed was gone.
// Mutation: doubt() does nothing.
TEST(Pool, AnExtentWhoseReleaseIsInDoubtTakesNoWritesUntilTheNextStart) {
  Rig rig(31);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB));
  ASSERT_TRUE(rig.write(1, 0, std::byte(1)));
  ASSERT_TRUE(rig.write(1, kExtent, std::byte(2)));
  rig.store->fail_commits = rig.store->doubt_commits = true;
  EXPECT_EQ(rig.zero(1, {0, kExtent}).error().code(), Code::kInDoubt);
  EXPECT_EQ(rig.write(1, 0, std::byte(3)).error().code(), Code::kInDoubt);
  EXPECT_EQ(rig.read(1, 0), std::byte(1));
  EXPECT_TRUE(rig.write(1, kExtent, std::byte(4))) << "the others are as they were";
  rig.power_cut(true);
  ASSERT_TRUE(rig.start());
  rig.attach_all();
  EXPECT_EQ(rig.read(1, 0), kZero);
  EXPECT_TRUE(rig.write(1, 0, std::byte(5)));
}

TEST(Pool, AnExtentTakenByARefusedCommitIsFreeAgain) {
  Rig rig(19);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB));
  const uint64_t free = rig.pool->usage().free_bytes;
  rig.store->fail_commits = true;
  EXPECT_EQ(rig.write(1, 0, std::byte(1)).error().code(), Code::kNoSpace);
  EXPECT_EQ(rig.pool->usage().free_bytes, free);
  EXPECT_FALSE(rig.backings[1]->is_mapped({0, kBlockBytes}));
  rig.store->fail_commits = false;
  EXPECT_TRUE(rig.write(1, 0, std::byte(1)));
}

TEST(Pool, ADeviceIsRemovedWhenNothingIsOnIt) {
  Rig rig(12);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.add("/d2", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB, false, "d2"));
  ASSERT_TRUE(rig.write(1, 0, std::byte(1)));
  const auto refused = rig.world.run(rig.pool->remove_device("d2"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kBusy);
  EXPECT_NE(refused.error().message().find("v1"), std::string_view::npos);
  const BackingId id = rig.backings[1]->id();
  ASSERT_TRUE(rig.world.run(rig.pool->drop_backing(id, VolumeNumber(1))));
  ASSERT_TRUE(rig.create(2, kMiB, false, "d1"));
  ASSERT_TRUE(rig.world.run(rig.pool->remove_device("d2")));
  EXPECT_EQ(rig.pool->devices().size(), 1u);
  EXPECT_FALSE(rig.world.disks["/d2"]->locked);
  ASSERT_TRUE(rig.write(2, 0, std::byte(2)));
  ASSERT_TRUE(rig.flush(2));
  ASSERT_TRUE(rig.add("/d2")) << "no label is left on it";
  EXPECT_EQ(rig.world.run(rig.pool->remove_device("nope")).error().code(), Code::kNoDevice);
}

TEST(Pool, AGrownDeviceGivesItsNewExtents) {
  Rig rig(13);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  const uint64_t before = rig.pool->usage().free_bytes;
  rig.world.disks["/d1"]->resize(kDisk + 2 * kMiB);
  const auto grown = rig.world.run(rig.pool->resize_device("d1"));
  ASSERT_TRUE(grown) << grown.error().describe();
  EXPECT_EQ(rig.pool->usage().free_bytes, before + 2 * kMiB);
  rig.world.disks["/d1"]->resize(kDisk);
  EXPECT_EQ(rig.world.run(rig.pool->resize_device("d1")).error().code(), Code::kSize);
  rig.world.disks["/d1"]->resize(kDisk + 2 * kMiB);
  ASSERT_TRUE(rig.create(1, before + 2 * kMiB, true));
  rig.power_cut();
  ASSERT_TRUE(rig.start());
}

TEST(Pool, ABackingGrownAgainDoesNotShowWhatItHeldBeforeItShrank) {
  Rig rig(14);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB));
  ASSERT_TRUE(rig.write(1, 0, std::byte(7), kMiB));
  meta::VolumeRow row = rig.tables.volumes.at(VolumeNumber(1));
  row.size_bytes = 3 * kExtent + kBlockBytes;
  const BackingId id = row.backing;
  ASSERT_TRUE(rig.world.run(rig.pool->resize_backing(id, row)));
  EXPECT_EQ(rig.backings[1]->allocated_bytes(), 4 * kExtent);
  row.size_bytes = kMiB;
  ASSERT_TRUE(rig.world.run(rig.pool->resize_backing(id, row)));
  EXPECT_EQ(rig.read(1, 3 * kExtent), std::byte(7));
  EXPECT_EQ(rig.read(1, 3 * kExtent + kBlockBytes), kZero);
  EXPECT_EQ(rig.read(1, 8 * kExtent), kZero);
}

TEST(Pool, ZeroModesReleaseKeepOrRefuse) {
  Rig rig(15);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB));
  ASSERT_TRUE(rig.write(1, 0, std::byte(1), 4 * kExtent));
  ASSERT_TRUE(rig.zero(1, {kBlockBytes, 2 * kExtent}));
  EXPECT_EQ(rig.backings[1]->allocated_bytes(), 3 * kExtent);
  EXPECT_EQ(rig.read(1, 0), std::byte(1));
  EXPECT_EQ(rig.read(1, kBlockBytes), kZero);
  EXPECT_EQ(rig.read(1, 2 * kExtent), kZero);
  EXPECT_EQ(rig.read(1, 2 * kExtent + kBlockBytes), std::byte(1));
  ASSERT_TRUE(rig.zero(1, {0, 6 * kExtent}, ZeroMode::kKeep));
  EXPECT_EQ(rig.backings[1]->allocated_bytes(), 6 * kExtent);
  EXPECT_EQ(rig.read(1, 0), kZero);
  ASSERT_TRUE(rig.zero(1, {0, kMiB}, ZeroMode::kFast));
  EXPECT_EQ(rig.backings[1]->allocated_bytes(), 0u);
}

TEST(Pool, ANewThickBackingOwesNothingOfAnEarlierRun) {
  Rig rig(17);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB, true));
  EXPECT_TRUE(rig.flush(1));
  rig.power_cut();
  ASSERT_TRUE(rig.start());
  rig.attach_all();
  EXPECT_TRUE(rig.flush(1));
  ASSERT_TRUE(rig.create(2, kMiB, true));
  EXPECT_TRUE(rig.flush(2));
}

TEST(Pool, ZeroesInsideAShortLastExtentLeaveTheRestOfIt) {
  Rig rig(16);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(1, kExtent + 4 * kBlockBytes));
  ASSERT_TRUE(rig.write(1, 0, std::byte(1), kExtent + 4 * kBlockBytes));
  for (const ZeroMode mode : {ZeroMode::kMayUnmap, ZeroMode::kFast}) {
    ASSERT_TRUE(rig.zero(1, {kExtent + kBlockBytes, kBlockBytes}, mode));
    EXPECT_EQ(rig.read(1, kExtent), std::byte(1));
    EXPECT_EQ(rig.read(1, kExtent + kBlockBytes), kZero);
    EXPECT_EQ(rig.read(1, kExtent + 2 * kBlockBytes), std::byte(1));
    EXPECT_EQ(rig.backings[1]->allocated_bytes(), 2 * kExtent);
  }
  // From its begin to the end of the backing it is a whole one.
  ASSERT_TRUE(rig.zero(1, {kExtent, 4 * kBlockBytes}));
  EXPECT_EQ(rig.backings[1]->allocated_bytes(), kExtent);
  EXPECT_EQ(rig.read(1, kExtent - kBlockBytes), std::byte(1));
}

}  // namespace
}  // namespace duplex::pool
