// Rebuilds: what is known again from the devices alone, what is refused, what is marked damaged.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "format/device_label.h"
#include "pool/pool.h"
#include "pool/test_world.h"

namespace duplex::pool {
namespace {

using test::Rig;

constexpr uint64_t kDisk = 6 * kMiB;
constexpr uint64_t kExtent = Rig::kExtent;
constexpr std::byte kZero{0};

TEST(PoolRebuild, ALostStateDirectoryIsRebuiltFromTheDevices) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Rig rig(seed);
    ASSERT_TRUE(rig.start());
    ASSERT_TRUE(rig.add("/d1", false, kDisk));
    ASSERT_TRUE(rig.add("/d2", false, kDisk));
    ASSERT_TRUE(rig.create(1, kMiB));
    ASSERT_TRUE(rig.create(2, kMiB));
    ASSERT_TRUE(rig.create(3, kMiB));
    for (uint64_t at = 0; at < kMiB; at += kExtent) {
      ASSERT_TRUE(rig.write(1, at, std::byte(1 + at / kExtent)));
      ASSERT_TRUE(rig.write(2, at, std::byte(0x77)));
    }
    ASSERT_TRUE(rig.zero(1, {0, 4 * kExtent}));
    ASSERT_TRUE(rig.flush(1));
    ASSERT_TRUE(rig.flush(2));
    const BackingId gone = rig.backings[3]->id();
    ASSERT_TRUE(rig.world.run(rig.pool->drop_backing(gone, VolumeNumber(3))));
    rig.world.settle(rt::kSecond);
    const auto old_tables = rig.tables;
    rig.power_cut(seed % 2 == 0);
    rig.tables = {};
    rig.tables.array.id = ArrayId(0x400104);
    test::TestStore fresh(rig.world, rig.tables);
    const auto report = rig.world.run(Pool::rebuild(rig.world, fresh, {"/d2"}, false));
    ASSERT_TRUE(report) << report.error().describe();
    EXPECT_EQ(report->devices.size(), 2u);
    EXPECT_TRUE(report->damaged_volumes.empty());
    const auto rebuilt_tables = rig.tables;
    ASSERT_TRUE(rig.start());
    rig.attach_all();
    ASSERT_TRUE(rig.backings.contains(1) && rig.backings.contains(2));
    for (uint64_t at = 0; at < kMiB; at += kExtent) {
      EXPECT_EQ(rig.read(1, at), at < 4 * kExtent ? kZero : std::byte(1 + at / kExtent));
      EXPECT_EQ(rig.read(2, at), std::byte(0x77));
    }
    // What nobody owns was not trusted to be clean.
    ASSERT_TRUE(rig.create(9, kMiB));
    ASSERT_TRUE(rig.world.run(Rig::zero_on(rig.core(9), rig.world.control(), *rig.backings[9],
                                           {0, kMiB}, ZeroMode::kKeep)));
    for (uint64_t at = 0; at < kMiB; at += kExtent) EXPECT_EQ(rig.read(9, at), kZero);
    rig.stop();
    rig.tables = old_tables;
    EXPECT_EQ(rig.start().error().code(), Code::kStale) << "the old state directory is history";
  }
}

// The block of the map log of /d1 that holds the n-th batch.
uint64_t batch_at(const Rig& rig, size_t n) {
  const auto& row = rig.tables.devices.begin()->second;
  const auto& bytes = rig.world.disks.at("/d1")->now;
  for (uint64_t at = row.log_offset; at < row.data_offset; at += kBlockBytes) {
    if (std::memcmp(bytes.data() + at, "DUPLEXLB", 8) == 0 && n-- == 0) return at;
  }
  ADD_FAILURE() << "no such batch";
  return 0;
}

// Three batches, the first two of them flushed.
void write_three_batches(Rig& rig) {
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB));
  for (uint64_t n = 0; n < 3; ++n) {
    ASSERT_TRUE(rig.write(1, n * kExtent, std::byte(1 + n)));
    if (n < 2) ASSERT_TRUE(rig.flush(1));
    rig.world.settle(rt::kSecond);
  }
}

// Mutation: has_hole() never true: the rebuild goes back to the state before the hole, and the
// flushed extents after it are cleaned.
TEST(PoolRebuild, ARebuildRefusesAMapLogWithAHoleAndByConsentMarksItsVolumes) {
  Rig rig(13);
  write_three_batches(rig);
  const uint64_t hole = batch_at(rig, 1);
  rig.power_cut(true);
  rig.world.disks["/d1"]->now[hole + 100] ^= std::byte(1);
  rig.world.disks["/d1"]->durable = rig.world.disks["/d1"]->now;
  rig.tables = {};
  rig.tables.array.id = ArrayId(0x400104);
  test::TestStore fresh(rig.world, rig.tables);
  const auto refused = rig.world.run(Pool::rebuild(rig.world, fresh, {"/d1"}, false));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kCorrupt);
  EXPECT_NE(refused.error().message().find("hole"), std::string_view::npos);
  EXPECT_NE(refused.error().next().find("--accept-missing"), std::string_view::npos);
  EXPECT_TRUE(rig.tables.devices.empty());
  const auto report = rig.world.run(Pool::rebuild(rig.world, fresh, {"/d1"}, true));
  ASSERT_TRUE(report) << report.error().describe();
  EXPECT_EQ(report->missing_devices, std::vector<std::string>{"d1 (in part)"});
  EXPECT_EQ(report->damaged_volumes, std::vector<std::string>{"v1"});
}

// A power cut may keep the last of several unflushed batches and drop one before it: that is no
// hole, nothing flushed is lost. Mutation: a batch tells its own end as flushed.
TEST(PoolRebuild, ARebuildTakesAMapLogWhoseUnflushedEndIsTorn) {
  Rig rig(14);
  write_three_batches(rig);
  ASSERT_TRUE(rig.write(1, 3 * kExtent, std::byte(4)));
  rig.world.settle(rt::kSecond);
  const uint64_t dropped = batch_at(rig, 2);
  auto& disk = *rig.world.disks["/d1"];
  for (uint64_t at = dropped; at < dropped + kBlockBytes; at += 512) disk.dirty.erase(at / 512);
  for (const uint64_t sector : disk.dirty)
    std::memcpy(disk.durable.data() + sector * 512, disk.now.data() + sector * 512, 512);
  rig.power_cut();
  ASSERT_EQ(std::memcmp(disk.now.data() + dropped + kBlockBytes, "DUPLEXLB", 8), 0);
  ASSERT_NE(std::memcmp(disk.now.data() + dropped, "DUPLEXLB", 8), 0);
  rig.tables = {};
  rig.tables.array.id = ArrayId(0x400104);
  test::TestStore fresh(rig.world, rig.tables);
  const auto report = rig.world.run(Pool::rebuild(rig.world, fresh, {"/d1"}, false));
  ASSERT_TRUE(report) << report.error().describe();
  EXPECT_TRUE(report->damaged_volumes.empty());
  ASSERT_TRUE(rig.start());
  rig.attach_all();
  EXPECT_EQ(rig.read(1, kExtent), std::byte(2));
}

TEST(PoolRebuild, ARebuildMissesADeviceAndByConsentMarksWhatItMayHold) {
  Rig rig(11);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.add("/d2", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB, true, "d1"));
  ASSERT_TRUE(rig.create(2, kMiB, false, "d2"));
  ASSERT_TRUE(rig.write(2, 0, std::byte(1)));
  rig.stop();
  rig.world.disks["/d2"]->gone = true;
  rig.tables = {};
  rig.tables.array.id = ArrayId(0x400104);
  test::TestStore fresh(rig.world, rig.tables);
  const auto refused = rig.world.run(Pool::rebuild(rig.world, fresh, {"/d1"}, false));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message().find("d2"), std::string_view::npos);
  EXPECT_TRUE(rig.tables.devices.empty());
  const auto report = rig.world.run(Pool::rebuild(rig.world, fresh, {"/d1"}, true));
  ASSERT_TRUE(report);
  EXPECT_EQ(report->damaged_volumes, std::vector<std::string>{"v2"});
  EXPECT_TRUE(rig.tables.volumes.at(VolumeNumber(2)).damaged);
  EXPECT_FALSE(rig.tables.volumes.at(VolumeNumber(1)).damaged);
  EXPECT_EQ(rig.tables.backings.at(rig.tables.volumes.at(VolumeNumber(1)).backing).device,
            DeviceId(1))
      << "v1 stays on d1";
  // The mark is in the map logs as well: a second rebuild still knows it.
  ASSERT_TRUE(rig.start());
  rig.world.settle(rt::kSecond);
  rig.stop();
  rig.tables = {};
  rig.tables.array.id = ArrayId(0x400104);
  test::TestStore again(rig.world, rig.tables);
  const auto second = rig.world.run(Pool::rebuild(rig.world, again, {"/d1"}, false));
  ASSERT_TRUE(second);
  EXPECT_EQ(second->damaged_volumes, std::vector<std::string>{"v2"});
}

// Device 1 was away while device 2 took over a place: only possible with a store that was lost
// before the log of device 1 was brought up.
TEST(PoolRebuild, ARebuildMarksAVolumeDamagedWhenTwoExtentsClaimOnePlace) {
  Rig rig(18);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB));
  ASSERT_TRUE(rig.create(2, kMiB));
  ASSERT_TRUE(rig.write(1, 0, std::byte(1)));
  ASSERT_TRUE(rig.write(2, 0, std::byte(1)));
  ASSERT_TRUE(rig.flush(1));
  ASSERT_TRUE(rig.flush(2));
  ASSERT_TRUE(rig.add("/d2", false, 8 * kMiB));
  rig.world.settle(rt::kSecond);
  const auto before = rig.world.disks["/d1"]->now;
  ASSERT_TRUE(rig.zero(1, {0, kExtent}));
  ASSERT_TRUE(rig.flush(1));
  ASSERT_TRUE(rig.write(1, 0, std::byte(2)));
  ASSERT_TRUE(rig.flush(1));
  rig.power_cut(false);
  rig.world.disks["/d1"]->now = rig.world.disks["/d1"]->durable = before;
  rig.tables = {};
  rig.tables.array.id = ArrayId(0x400104);
  test::TestStore fresh(rig.world, rig.tables);
  const auto report = rig.world.run(Pool::rebuild(rig.world, fresh, {"/d1"}, false));
  ASSERT_TRUE(report) << report.error().describe();
  EXPECT_EQ(report->damaged_volumes, std::vector<std::string>{"v1"});
  EXPECT_TRUE(rig.start());
}

}  // namespace
}  // namespace duplex::pool
