// The registry of volumes on a pool in memory.
#include "volume/volumes.h"

#include <gtest/gtest.h>

#include "volume/registry_test_kit.h"

namespace duplex::volume {
namespace {

class VolumesTest : public testing::Registry {};

TEST_F(VolumesTest, AVolumeIsCreatedOpenedUsedClosedAndDeleted) {
  const auto created = create("db", 10000);
  ASSERT_TRUE(created);
  EXPECT_TRUE(created->created);
  EXPECT_EQ(created->info.size_bytes, 12288u);
  EXPECT_EQ(created->info.number, VolumeNumber(1));
  EXPECT_EQ(created->info.backing, "PD1");
  auto opened = open("db");
  EXPECT_EQ(volumes->info("0x0001")->clients, (std::vector<std::string>{"client of db"}));
  std::vector<std::byte> bytes(100, std::byte{1});
  Volume& volume = opened->volume();
  ASSERT_TRUE(world.finish(world.reactor(0), volume.write(5, bytes, true)));
  EXPECT_EQ(volumes->info("db")->stats.written_bytes, 100u);
  EXPECT_EQ(finish(volumes->extents("db"))->size(), 1u);
  close(std::move(opened));
  ASSERT_TRUE(finish(volumes->remove("db", false)));
  EXPECT_EQ(code_of(volumes->find("db")), Code::kNoVolume);
  EXPECT_TRUE(pool.held.empty());
  EXPECT_EQ(events.codes,
            (std::vector<std::string>{"volume_created volume db", "volume_deleted volume db"}));
}

TEST_F(VolumesTest, TheSameCreateAgainSucceedsAndADifferentOneIsRefused) {
  ASSERT_TRUE(create("db", kMiB - 1));
  const auto again = create("db");
  ASSERT_TRUE(again);
  EXPECT_FALSE(again->created);
  EXPECT_EQ(code_of(create("db", 2 * kMiB)), Code::kExists);
  const auto differs = [&](auto change) {
    CreateVolume changed = request("db");
    change(changed);
    return code_of(finish(volumes->create(changed))) == Code::kExists;
  };
  EXPECT_TRUE(differs([](CreateVolume& r) { r.number = VolumeNumber(2); }));
  EXPECT_TRUE(differs([](CreateVolume& r) { r.backing = "PD9"; }));
  EXPECT_TRUE(differs([](CreateVolume& r) { r.thick = true; }));
  EXPECT_TRUE(differs([](CreateVolume& r) { r.device = "fast"; }));
  CreateVolume explicitly = request("db");
  explicitly.number = VolumeNumber(1);
  explicitly.backing = "PD1";
  EXPECT_TRUE(finish(volumes->create(explicitly)));
  EXPECT_EQ(pool.held.size(), 1u);
}

TEST_F(VolumesTest, WrongNamesAndSizesAreRefused) {
  EXPECT_EQ(code_of(create("0x0001")), Code::kInvalid);
  EXPECT_EQ(code_of(create("")), Code::kInvalid);
  EXPECT_EQ(code_of(create("a", 0)), Code::kSize);
  EXPECT_EQ(code_of(create("a", kMaxBytes + 1)), Code::kSize);
  EXPECT_EQ(code_of(create("a", UINT64_MAX)), Code::kSize);
  EXPECT_TRUE(volumes->infos().empty());
}

TEST_F(VolumesTest, NumbersAreTheLowestFreeOrTheOneAskedFor) {
  ASSERT_TRUE(create("a"));
  ASSERT_TRUE(create("b"));
  ASSERT_TRUE(create("c"));
  ASSERT_TRUE(finish(volumes->remove("b", false)));
  EXPECT_EQ(create("d")->info.number, VolumeNumber(2));
  EXPECT_EQ(create_numbered("e", 0xffff)->info.number, VolumeNumber(0xffff));
  EXPECT_EQ(code_of(create_numbered("f", 2)), Code::kExists);
}

TEST_F(VolumesTest, VolumesAreSpreadOverTheReactors) {
  std::vector<size_t> cores;
  for (const char* name : {"a", "b", "c", "d"}) cores.push_back(create(name)->info.core);
  EXPECT_EQ(cores, (std::vector<size_t>{1, 2, 1, 2}));
  ASSERT_TRUE(finish(volumes->remove("b", false)));
  EXPECT_EQ(create("e")->info.core, 2u);
}

TEST_F(VolumesTest, ACreateThatThePoolRefusesLeavesNothing) {
  pool.refuse = Code::kNoSpace;
  EXPECT_EQ(code_of(create("db")), Code::kNoSpace);
  EXPECT_TRUE(volumes->infos().empty());
  pool.refuse.reset();
  EXPECT_EQ(create("db")->info.number, VolumeNumber(1));
}

TEST_F(VolumesTest, WhileAVolumeIsBeingCreatedItsNameAndNumberAreTakenAndItIsNotShown) {
  pool.slow = true;
  const auto creating = start(volumes->create(request("db")));
  EXPECT_TRUE(volumes->infos().empty() && volumes->list().empty());
  EXPECT_EQ(code_of(volumes->open("db", "c", [] {})), Code::kNoVolume);
  EXPECT_EQ(code_of(create("db")), Code::kBusy);
  EXPECT_EQ(code_of(finish(volumes->remove("db", false))), Code::kBusy);
  const auto other = start(volumes->create(request("log")));
  let_go();
  EXPECT_EQ((*creating)->value().info.number, VolumeNumber(1));
  EXPECT_EQ((*other)->value().info.number, VolumeNumber(2));
}

TEST_F(VolumesTest, ARemoveIsRefusedWithClientsUnlessItDisconnectsThem) {
  ASSERT_TRUE(create("db"));
  int told = 0;
  auto first = open("db", [&] { ++told; });
  auto second = open("db", [&] { ++told; });
  const auto refused = finish(volumes->remove("db", false));
  EXPECT_EQ(code_of(refused), Code::kBusy);
  EXPECT_NE(refused.error().message().find("client of db"), std::string_view::npos);
  const auto removed = start(volumes->remove("db", true));
  EXPECT_EQ(told, 2);
  EXPECT_FALSE(removed->has_value());
  EXPECT_EQ(code_of(volumes->open("db", "late", [] {})), Code::kState);
  close(std::move(first));
  EXPECT_FALSE(removed->has_value());
  close(std::move(second));
  EXPECT_TRUE(removed->value());
}

TEST_F(VolumesTest, ARemoveThatThePoolRefusesKeepsTheVolume) {
  ASSERT_TRUE(create("db"));
  pool.refuse = Code::kSystem;
  EXPECT_EQ(code_of(finish(volumes->remove("db", false))), Code::kSystem);
  auto opened = open("db");
  close(std::move(opened));
}

TEST_F(VolumesTest, GrowingIsOnlineAndShrinkingDropsNoDataUnasked) {
  ASSERT_TRUE(create("db"));
  auto opened = open("db");
  Volume& volume = opened->volume();
  std::vector<std::byte> bytes(4096, std::byte{1});
  EXPECT_EQ(finish(volumes->resize("db", 2 * kMiB - 1, false))->size_bytes, 2 * kMiB);
  ASSERT_TRUE(world.finish(world.reactor(0), volume.write(2 * kMiB - 4096, bytes, false)));
  EXPECT_EQ(code_of(finish(volumes->resize("db", kMiB, false))), Code::kState);
  EXPECT_EQ(volumes->info("db")->size_bytes, 2 * kMiB);
  ASSERT_TRUE(finish(volumes->resize("db", kMiB, true)));
  EXPECT_EQ(volume.size_bytes(), kMiB);
  EXPECT_EQ(code_of(world.finish(world.reactor(0), volume.read(kMiB, bytes))), Code::kSize);
  EXPECT_EQ(code_of(finish(volumes->resize("db", 0, true))), Code::kSize);
  EXPECT_EQ(events.codes.size(), 3u);
  EXPECT_EQ(pool.rows.begin()->second.size_bytes, kMiB);
  close(std::move(opened));
}

TEST_F(VolumesTest, AResizeThatThePoolRefusesChangesNothing) {
  ASSERT_TRUE(create("db"));
  pool.refuse = Code::kNoSpace;
  EXPECT_EQ(code_of(finish(volumes->resize("db", 2 * kMiB, false))), Code::kNoSpace);
  EXPECT_EQ(code_of(finish(volumes->resize("db", kMiB / 2, false))), Code::kNoSpace);
  EXPECT_EQ(volumes->info("db")->size_bytes, kMiB);
  EXPECT_EQ(events.codes.size(), 1u);
}

TEST_F(VolumesTest, ALossToldToAGrowFailsTheNextFlushAsWell) {
  ASSERT_TRUE(create("db"));
  auto opened = open("db");
  pool.refuse = Code::kFlushLost;
  EXPECT_EQ(code_of(finish(volumes->resize("db", 2 * kMiB, false))), Code::kFlushLost);
  EXPECT_EQ(code_of(world.finish(world.reactor(0), opened->volume().flush())), Code::kFlushLost);
  EXPECT_TRUE(world.finish(world.reactor(0), opened->volume().flush()));
  close(std::move(opened));
}

TEST_F(VolumesTest, ARestartBringsTheVolumesBackAndRefusesDamagedOnes) {
  ASSERT_TRUE(create("a"));
  ASSERT_TRUE(create("b"));
  const auto before = volumes->infos();
  pool.rows[BackingId(2)].damaged = true;
  reopen();
  const auto after = volumes->infos();
  ASSERT_EQ(after.size(), 2u);
  EXPECT_EQ(after[0].name, before[0].name);
  EXPECT_EQ(after[0].core, before[0].core);
  EXPECT_EQ(after[0].created_us, before[0].created_us);
  EXPECT_TRUE(after[0].thick && after[0].device == "fast");
  EXPECT_TRUE(after[1].damaged);
  EXPECT_EQ(code_of(volumes->open("b", "c", [] {})), Code::kState);
  EXPECT_TRUE(finish(volumes->remove("b", false)));
}

TEST_F(VolumesTest, StopDisconnectsEverybodyWaitsAndRefusesWhatComes) {
  ASSERT_TRUE(create("a"));
  ASSERT_TRUE(create("b"));
  std::unique_ptr<OpenVolume> first;
  first = open("a", [&] { volumes->close(std::move(first)); });  // closes inside the callback
  auto second = open("b");
  const auto stopped = start(testing::ended(volumes->stop()));
  EXPECT_EQ(first, nullptr);
  EXPECT_FALSE(stopped->has_value());
  EXPECT_EQ(code_of(volumes->open("a", "late", [] {})), Code::kShutdown);
  EXPECT_EQ(code_of(create("c")), Code::kShutdown);
  EXPECT_EQ(code_of(finish(volumes->remove("a", false))), Code::kShutdown);
  close(std::move(second));
  EXPECT_TRUE(stopped->has_value());
}

}  // namespace
}  // namespace duplex::volume
