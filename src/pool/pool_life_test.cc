// Lives: each start leaves its number in the store, then in the labels of the devices it uses, and
// a copy of the store from before that start is refused whatever has changed since.
#include <gtest/gtest.h>

#include <cstring>

#include "format/device_label.h"
#include "pool/test_world.h"

namespace duplex::pool {
namespace {

using test::Rig;

constexpr uint64_t kDisk = 6 * kMiB;

// Two devices, and a volume on the first one with one extent that is mapped.
void make_array(Rig& rig) {
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/d1", false, kDisk));
  ASSERT_TRUE(rig.add("/d2", false, kDisk));
  ASSERT_TRUE(rig.create(1, kMiB, false, "d1"));
  ASSERT_TRUE(rig.write(1, 0, std::byte(1)));
  ASSERT_TRUE(rig.flush(1));
  rig.world.settle(rt::kSecond);
  rig.stop();
}

format::DeviceLabel label_at(const Rig& rig, const std::string& path, size_t copy = 0) {
  const auto& bytes = rig.world.disks.at(path)->durable;
  const auto label = format::decode_label(
      std::span(bytes).subspan(format::kLabelOffsets[copy], format::kLabelBytes));
  EXPECT_TRUE(label);
  return label ? *label : format::DeviceLabel{};
}

void put_label(Rig& rig, const std::string& path, size_t copy, const format::DeviceLabel& label) {
  const auto bytes = format::encode_label(label);
  auto& disk = *rig.world.disks.at(path);
  std::memcpy(disk.now.data() + format::kLabelOffsets[copy], bytes.data(), bytes.size());
  disk.durable = disk.now;
}

void expect_stale(Rig& rig) {
  const auto started = rig.start();
  if (started) rig.stop();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code(), Code::kStale) << started.error().describe();
  EXPECT_NE(started.error().next().find("--rebuild"), std::string_view::npos);
}

// Mutation: begin_life() does nothing.
TEST(PoolLife, AnOldCopyOfTheStoreIsRefusedThoughNoMapHasChangedSince) {
  for (const bool cleanly : {true, false}) {
    Rig rig(1);
    make_array(rig);
    const auto old = rig.tables;
    ASSERT_TRUE(rig.start());
    rig.attach_all();
    ASSERT_TRUE(rig.write(1, 0, std::byte(2)));
    ASSERT_TRUE(rig.flush(1));
    cleanly ? rig.stop() : rig.power_cut();
    const auto now = rig.tables;
    EXPECT_EQ(old.devices.at(DeviceId(1)).log_sequence, now.devices.at(DeviceId(1)).log_sequence)
        << "the map logs do not tell";
    rig.tables = old;
    expect_stale(rig);
    rig.tables = now;
    ASSERT_TRUE(rig.start()) << "the refused start has touched nothing";
    rig.attach_all();
    EXPECT_EQ(rig.read(1, 0), std::byte(2));
  }
}

// Each device that is there when the start returns has the trace. Mutation: start() leaves the
// labels to the attach loop.
TEST(PoolLife, AStartReturnsWithItsLifeInTheStoreAndOnAllDevices) {
  Rig rig(2);
  make_array(rig);
  const uint64_t before = label_at(rig, "/d1").life;
  ASSERT_TRUE(rig.start());
  for (const auto& [id, row] : rig.tables.devices) {
    EXPECT_GT(row.life, before);
    for (const size_t copy : {0u, 1u}) EXPECT_EQ(label_at(rig, row.path, copy).life, row.life);
  }
}

// Mutation: store_life() puts the number into the rows in memory before the commit; a cut between
// label and commit refuses the array for good.
TEST(PoolLife, ACutAnywhereInAStartNeverMakesTheNextOneRefuse) {
  bool ended = false;
  uint64_t between = 0;  // cuts after the store has the life and before a label has it
  for (uint64_t at = 1; !ended; ++at) {
    SCOPED_TRACE(at);
    Rig rig(at);
    make_array(rig);
    rig.store = std::make_unique<test::TestStore>(rig.world, rig.tables);
    const auto snapshot = rig.world.run(rig.store->load());
    std::optional<Result<std::unique_ptr<Pool>>> opened;
    {
      rt::TaskGroup group(rig.world.control());
      rig.world.start(group, Pool::open(rig.world, *rig.store, rig.events, *snapshot), opened);
      for (uint64_t i = 0; i < at && !opened; ++i) rig.world.step();
      ended = opened.has_value();
      rig.world.kill();
    }
    opened.reset();
    rig.power_cut();
    const uint64_t life = rig.tables.devices.at(DeviceId(1)).life;
    if (life > snapshot->devices[0].life && label_at(rig, "/d1", 1).life < life) ++between;
    const auto started = rig.start();
    ASSERT_TRUE(started) << started.error().describe();
    EXPECT_EQ(label_at(rig, "/d1").life, rig.tables.devices.at(DeviceId(1)).life);
  }
  EXPECT_GT(between, 0u);
}

// Mutation: renew_label() does nothing: the device is used before its label is written.
TEST(PoolLife, ADeviceThatWasAwayAtTheStartGetsTheLifeBeforeItIsUsed) {
  Rig rig(4);
  make_array(rig);
  rig.world.disks["/d2"]->gone = true;
  ASSERT_TRUE(rig.start());
  const uint64_t life = rig.tables.devices.at(DeviceId(1)).life;
  EXPECT_LT(rig.tables.devices.at(DeviceId(2)).life, life);
  rig.world.disks["/d2"]->gone = false;
  const auto is_back = [&] { return rig.pool->device("d2")->state == DeviceState::kOnline; };
  for (uint64_t i = 0; i < 100'000 && !is_back(); ++i) ASSERT_TRUE(rig.world.step());
  ASSERT_TRUE(is_back());
  EXPECT_EQ(rig.tables.devices.at(DeviceId(2)).life, life);
  EXPECT_EQ(label_at(rig, "/d2", 1).life, life);
}

// What counts is what the store knows of this device, not how often it has started itself: both
// went through as many starts here. Mutation: check_label() compares with the life of the start.
TEST(PoolLife, ADeviceThatComesBackFromALaterTimeStaysAway) {
  Rig rig(5);
  make_array(rig);
  const auto old = rig.tables;
  rig.world.disks["/d2"]->gone = true;
  ASSERT_TRUE(rig.start());
  rig.stop();
  rig.tables = old;
  rig.world.disks["/d2"]->gone = false;
  rig.world.disks["/d1"]->gone = true;
  ASSERT_TRUE(rig.start()) << "the device that is there knows nothing";
  rig.world.disks["/d1"]->gone = false;
  rig.world.settle(3 * rt::kSecond);
  EXPECT_EQ(rig.pool->device("d1")->state, DeviceState::kAbsent);
  EXPECT_NE(rig.pool->device("d1")->reason.find("is older than device d1"), std::string::npos);
}

// The first of two stores that went on from one copy got no further than its own commit.
// Mutation: begin_life() counts, whatever the time.
TEST(PoolLife, TwoStoresThatWentOnFromOneCopyDoNotMeetAtOneNumber) {
  Rig rig(6);
  make_array(rig);
  const auto old = rig.tables;
  const std::map<std::string, std::vector<std::byte>> before = {
      {"/d1", rig.world.disks["/d1"]->durable}, {"/d2", rig.world.disks["/d2"]->durable}};
  rig.world.wall_us = 1000;
  ASSERT_TRUE(rig.start());
  rig.stop();
  const auto one = rig.tables;
  for (const auto& [path, bytes] : before) {
    rig.world.disks[path]->now = rig.world.disks[path]->durable = bytes;
  }
  rig.tables = old;
  rig.world.wall_us = 2000;
  ASSERT_TRUE(rig.start());
  rig.stop();
  rig.tables = one;
  expect_stale(rig);
}

TEST(PoolLife, AClockThatWasSetBackRefusesNothingAndStillLeavesATrace) {
  Rig rig(7);
  rig.world.wall_us = 5000;
  make_array(rig);
  const auto old = rig.tables;
  rig.world.wall_us = -1;
  ASSERT_TRUE(rig.start());
  rig.stop();
  const auto now = rig.tables;
  rig.tables = old;
  expect_stale(rig);
  rig.tables = now;
  EXPECT_TRUE(rig.start());
}

// A label is renewed without a new sequence when its device comes back; a cut leaves one copy.
// Mutation: read_label() looks at the sequence alone.
TEST(PoolLife, OfTwoCopiesWithOneSequenceTheOneWithTheLaterLifeCounts) {
  for (const size_t copy : {0u, 1u}) {
    Rig rig(8);
    make_array(rig);
    format::DeviceLabel later = label_at(rig, "/d1");
    ++later.life;
    put_label(rig, "/d1", copy, later);
    expect_stale(rig);
  }
}

TEST(PoolLife, LabelsAndRowsFromBeforeThereWereLivesAreTaken) {
  Rig rig(9);
  make_array(rig);
  for (const char* path : {"/d1", "/d2"}) {
    for (const size_t copy : {0u, 1u}) {
      format::DeviceLabel label = label_at(rig, path, copy);
      label.life = 0;
      put_label(rig, path, copy, label);
    }
  }
  for (auto& [id, row] : rig.tables.devices) row.life = 0;
  const auto old = rig.tables;
  ASSERT_TRUE(rig.start());
  rig.stop();
  rig.tables = old;
  expect_stale(rig);
}

// Mutation: the attach loop does not come back to it.
TEST(PoolLife, AStartWithAFullStateDirectoryServesAndLeavesItsTraceWhenThereIsRoom) {
  Rig rig(10);
  make_array(rig);
  const auto old = rig.tables;
  const auto open = [&](bool in_doubt) {
    rig.store = std::make_unique<test::TestStore>(rig.world, rig.tables);
    rig.store->fail_commits = true;
    rig.store->doubt_commits = in_doubt;
    const auto snapshot = rig.world.run(rig.store->load());
    return rig.world.run(Pool::open(rig.world, *rig.store, rig.events, *snapshot));
  };
  auto full = open(false);
  ASSERT_TRUE(full) << full.error().describe();
  rig.pool = std::move(*full);
  rig.attach_all();
  EXPECT_EQ(rig.read(1, 0), std::byte(1));
  rig.world.settle(3 * rt::kSecond);
  EXPECT_EQ(label_at(rig, "/d1").life, old.devices.at(DeviceId(1)).life) << "the store first";
  rig.store->fail_commits = false;
  rig.world.settle(3 * rt::kSecond);
  const uint64_t life = rig.tables.devices.at(DeviceId(1)).life;
  EXPECT_GT(life, old.devices.at(DeviceId(1)).life);
  EXPECT_EQ(label_at(rig, "/d1").life, life);
  rig.stop();
  const auto broken = open(true);
  ASSERT_FALSE(broken) << "a store that fails in another way is no store";
  EXPECT_EQ(broken.error().code(), Code::kInDoubt);
  rig.store.reset();
  EXPECT_TRUE(rig.start());
}

// A label that cannot be written is tried again; the device is read meanwhile.
TEST(PoolLife, ADeviceThatTakesNoWritesAtTheStartIsStillRead) {
  Rig rig(11);
  make_array(rig);
  rig.world.disks["/d1"]->write_error = EIO;
  ASSERT_TRUE(rig.start());
  rig.attach_all();
  EXPECT_EQ(rig.read(1, 0), std::byte(1));
  rig.world.disks["/d1"]->write_error = 0;
  rig.world.settle(3 * rt::kSecond);
  EXPECT_EQ(label_at(rig, "/d1").life, rig.tables.devices.at(DeviceId(1)).life);
}

}  // namespace
}  // namespace duplex::pool
