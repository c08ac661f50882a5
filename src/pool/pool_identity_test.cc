// Identity in the pool: a device added again, the numbers and names of backings, the log that
// knows all volumes.
#include <gtest/gtest.h>

#include <algorithm>

#include "format/device_label.h"
#include "pool/test_world.h"

namespace duplex::pool {
namespace {

using test::Rig;

constexpr uint64_t kExtent = Rig::kExtent;
constexpr uint64_t kDisk = 16 * kMiB;

TEST(PoolIdentity, ADeviceAddedAgainIsTheSameOrRefused) {
  Rig rig(22);
  ASSERT_TRUE(rig.start());
  const auto again = [&](AddDevice request) {
    return rig.world.run(rig.pool->add_device(std::move(request)));
  };
  const AddDevice first = {
      .path = "/d1", .name = "one", .create_bytes = kDisk + 100, .extent_bytes = kExtent};
  const auto made = again(first);
  ASSERT_TRUE(made) << made.error().describe();
  EXPECT_TRUE(made->created);
  ASSERT_TRUE(rig.create(1, kMiB));
  ASSERT_TRUE(rig.write(1, 0, std::byte(7)));
  const uint64_t commits = rig.store->commits;
  for (const AddDevice& request :
       {first, AddDevice{.path = "/d1", .name = ""}, AddDevice{.path = "/d1", .name = "one"},
        AddDevice{.path = "/d1", .name = "", .overwrite = true}}) {
    const auto same = again(request);
    ASSERT_TRUE(same) << same.error().describe();
    EXPECT_FALSE(same->created);
    EXPECT_EQ(same->info.uuid, made->info.uuid);
  }
  for (const AddDevice& request :
       {AddDevice{.path = "/d1", .name = "two"},
        AddDevice{.path = "/d1", .name = "", .create_bytes = 2 * kDisk},
        AddDevice{.path = "/d1", .name = "", .extent_bytes = 2 * kExtent}}) {
    const auto other = again(request);
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code(), Code::kExists);
    EXPECT_NE(other.error().next(), "");
  }
  EXPECT_EQ(rig.store->commits, commits);
  EXPECT_EQ(rig.read(1, 0), std::byte(7));
  // One that does not say takes the size of extents that is in use.
  const auto second = again({.path = "/d2", .name = "", .create_bytes = kDisk});
  ASSERT_TRUE(second) << second.error().describe();
  EXPECT_EQ(second->info.extent_bytes, kExtent);
}

TEST(PoolIdentity, TheNumberOfABackingIsNeverUsedAgain) {
  Rig rig(23);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB));
  ASSERT_TRUE(rig.create(2, kMiB));
  const BackingId last = rig.backings[2]->id();
  ASSERT_TRUE(rig.world.run(rig.pool->drop_backing(last, VolumeNumber(2))));
  rig.power_cut();
  ASSERT_TRUE(rig.start());
  const auto made = rig.create(2, kMiB);
  ASSERT_TRUE(made);
  EXPECT_GT((*made)->id(), last);
  EXPECT_EQ((*made)->name(), "PD3");
}

TEST(PoolIdentity, ANameGivenByHandDoesNotStandInTheWayOfTheNextOne) {
  Rig rig(24);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  meta::VolumeRow row;
  row.number = VolumeNumber(9);
  row.name = "v9";
  row.size_bytes = kMiB;
  ASSERT_TRUE(rig.world.run(rig.pool->create_backing(
      {.name = "PD2", .size_bytes = kMiB, .thick = false, .device = ""}, rig.core(9), row)));
  const auto made = rig.create(1, kMiB);
  ASSERT_TRUE(made) << made.error().describe();
  EXPECT_EQ((*made)->name(), "PD3");
}

// The map log of the new device was written before the volume was made, and rises above the other
// log afterwards.
TEST(PoolIdentity, ARebuildKnowsAVolumeMadeWhileADeviceWasAdded) {
  Rig rig(25);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.create(2, kMiB));
  rig.world.settle(rt::kSecond);
  rig.world.hold = [](const rt::FileOp& op) {
    return op.kind == rt::FileOp::Kind::kWrite && op.offset >= kMiB;  // map logs
  };
  std::optional<Result<Pool::AddedDevice>> added;
  rt::TaskGroup group(rig.world.control());
  rig.world.start(
      group,
      rig.pool->add_device(
          {.path = "/d2", .name = "", .create_bytes = 2 * kDisk, .extent_bytes = kExtent}),
      added);
  const auto is_held = [&](const test::TestWorld::Io& io) { return rig.world.hold(*io.op); };
  while (!std::ranges::any_of(rig.world.in_flight, is_held)) ASSERT_TRUE(rig.world.step());
  ASSERT_TRUE(rig.create(1, kMiB));
  ASSERT_FALSE(added);
  rig.world.hold = nullptr;
  while (!added) ASSERT_TRUE(rig.world.step());
  ASSERT_TRUE(*added);
  for (uint64_t at = 0; at < kMiB; at += kExtent) ASSERT_TRUE(rig.write(1, at, std::byte(7)));
  ASSERT_TRUE(rig.flush(1));
  rig.power_cut();
  rig.tables = {};
  rig.tables.array.id = ArrayId(0x400104);
  test::TestStore fresh(rig.world, rig.tables);
  const auto report = rig.world.run(Pool::rebuild(rig.world, fresh, {"/d1"}, false));
  ASSERT_TRUE(report) << report.error().describe();
  EXPECT_EQ(report->volumes, (std::vector<std::string>{"v1", "v2"}));
  ASSERT_TRUE(rig.start());
  rig.attach_all();
  for (uint64_t at = 0; at < kMiB; at += kExtent) EXPECT_EQ(rig.read(1, at), std::byte(7));
}

// Mutation: is_alone is not looked at: the second damage is the end of the device.
TEST(PoolIdentity, ADamagedLabelCopyIsToldAndWrittenAgain) {
  for (const uint64_t copy : format::kLabelOffsets) {
    Rig rig(26);
    ASSERT_TRUE(rig.start());
    ASSERT_TRUE(rig.add("/d1", false, kDisk));
    rig.stop();
    auto& disk = *rig.world.disks["/d1"];
    const auto before = disk.now;
    disk.now[copy + 100] ^= std::byte(1);
    disk.durable = disk.now;
    ASSERT_TRUE(rig.start());
    rig.world.settle(2 * rt::kSecond);
    EXPECT_EQ(rig.events.count("label_repaired"), 1u);
    rig.stop();
    disk.now[format::kLabelOffsets[0] + 100] ^= std::byte(1);
    disk.durable = disk.now;
    EXPECT_TRUE(rig.start()) << "the other copy is whole";
  }
}

// A state directory that was made anew has the same name and number, but is not that array.
TEST(PoolIdentity, ADeviceOfAnotherStateDirectoryIsRefusedWithTheWayToRestoreIt) {
  Rig rig(27);
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  rig.stop();
  rig.tables = {};
  rig.tables.array.id = ArrayId(0x400104);
  rig.tables.array.uuid = Uuid::from_random(1, 2);
  ASSERT_TRUE(rig.start());
  const auto refused = rig.world.run(rig.pool->add_device({.path = "/d1", .name = ""}));
  ASSERT_FALSE(refused);
  const size_t restore = refused.error().next().find("--rebuild --device /d1");
  const size_t destroy = refused.error().next().find("--overwrite");
  EXPECT_LT(restore, destroy);
  EXPECT_NE(destroy, std::string_view::npos);
}

}  // namespace
}  // namespace duplex::pool
