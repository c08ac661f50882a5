// Volumes as parts of mirrors: who joins, what that refuses, what hosts may do, and what a restart
// finds of a tracker's marks.
#include "volume/members.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "volume/registry_test_kit.h"
#include "volume/tracker.h"
#include "volume/volume_impl.h"

namespace duplex::volume {
namespace {

constexpr VolumeNumber kDb{1};
constexpr MapId kMap{3};

class MembersTest : public testing::Registry {
 protected:
  MembersTest() { EXPECT_TRUE(create("db", 16 * kMiB)); }
  Member& join(std::string mirror = "m1", VolumeNumber number = kDb) {
    auto member = finish(volumes->join(number, std::move(mirror)));
    EXPECT_TRUE(member) << member.error().describe();
    return **member;
  }
  // As the source of a mirror, or a target that was split: what it writes is marked.
  Member& with_map(Member& member) {
    on_core_of(member, [&] {
      member.tracker().add_map(kMap, MapKind::kCopyAway, ChangeMap(member.size_bytes()));
    });
    return member;
  }
  template <class F>
  void on_core_of(Member& member, F f) {
    world.reactor(&member.core() == &world.reactor(0) ? 0 : 1).inside(f);
  }
  void leave(Member& member, std::string mirror = "m1") {
    finish(testing::ended(volumes->leave(member, std::move(mirror))));
  }
  // On reactor 0, where the first volume lives.
  testing::TestCore& core() { return world.reactor(0); }
  rt::Task<Result<void>> write_to(Volume& volume, uint64_t offset) {
    const rt::Buffer data = core().buffers().get(kBlockBytes);
    std::memset(data.data(), 1, kBlockBytes);
    co_return co_await volume.write(offset, data.span(), false);
  }
  Result<void> write(Member& member, uint64_t offset) {
    return world.finish(core(), write_to(member.volume(), offset));
  }
  static std::string told(const Error& error) { return error.describe(); }
};

TEST_F(MembersTest, AVolumeJoinsIsItselfAndLeavesWithItsLastMirror) {
  Member& member = join();
  EXPECT_EQ(member.name(), "db");
  EXPECT_EQ(member.number(), kDb);
  EXPECT_EQ(member.size_bytes(), 16 * kMiB);
  EXPECT_EQ(&member.core(), &world.reactor(0));
  Tracker& tracker = member.tracker();
  EXPECT_EQ(&join("m2"), &member);
  EXPECT_EQ(&member.tracker(), &tracker);
  EXPECT_EQ(volumes->info("db")->mirrors, (std::vector<std::string>{"m1", "m2"}));
  leave(member);
  EXPECT_EQ(member.mirrors(), (std::vector<std::string>{"m2"}));
  leave(member, "m2");
  EXPECT_TRUE(volumes->info("db")->mirrors.empty());
  EXPECT_TRUE(finish(volumes->remove("db", false)));
}

// Mutation: ready() in place of ready_alone() in remove or resize.
TEST_F(MembersTest, AMemberIsNeitherRemovedNorResizedAndTheRefusalNamesTheMirror) {
  Member& member = join();
  const auto removed = finish(volumes->remove("db", true));
  EXPECT_EQ(code_of(removed), Code::kState);
  EXPECT_EQ(told(removed.error()), "volume db is in mirror m1 (next: duplex mirror delete m1)");
  EXPECT_EQ(code_of(finish(volumes->resize("db", 32 * kMiB, false))), Code::kState);
  EXPECT_EQ(code_of(finish(volumes->resize("db", kMiB, true))), Code::kState);
  leave(member);
  EXPECT_TRUE(finish(volumes->resize("db", 32 * kMiB, false)));
}

TEST_F(MembersTest, NobodyJoinsAVolumeThatIsNotThereOrUnderAnotherVerb) {
  const auto join_code = [&] { return code_of(finish(volumes->join(kDb, "m1"))); };
  EXPECT_EQ(code_of(finish(volumes->join(VolumeNumber(9), "m1"))), Code::kNoVolume);
  pool.slow = true;
  const auto created = start(volumes->create(request("log")));
  EXPECT_EQ(code_of(finish(volumes->join(VolumeNumber(2), "m1"))), Code::kBusy);
  const auto resized = start(volumes->resize("db", 32 * kMiB, false));
  EXPECT_EQ(join_code(), Code::kBusy);
  let_go();
  ASSERT_TRUE(resized->has_value());
  world.control().inside([&] { pool.go.reset(); });
  const auto removed = start(volumes->remove("db", false));
  EXPECT_EQ(join_code(), Code::kBusy);
  let_go();
  EXPECT_EQ(join_code(), Code::kNoVolume);
}

TEST_F(MembersTest, AVolumeWhoseMapWouldNotFitIntoTheStoreIsRefused) {
  ASSERT_TRUE(create("huge", kMaxMemberBytes + kBlockBytes));
  ASSERT_TRUE(create("large", kMaxMemberBytes));
  EXPECT_EQ(code_of(finish(volumes->join(VolumeNumber(2), "m1"))), Code::kSize);
  leave(join("m1", VolumeNumber(3)));
}

TEST_F(MembersTest, ManyJoinAndLeaveAtOnceAndTheTrackerIsThereForWhoeverIsIn) {
  auto first = world.start(world.control(), volumes->join(kDb, "m1"));
  auto second = world.start(world.control(), volumes->join(kDb, "m2"));
  EXPECT_FALSE(finish(volumes->remove("db", false)));
  world.run();
  Member& member = *first->value().value();
  EXPECT_EQ(second->value().value(), &member);
  leave(member, "m2");
  // The last one leaves while another one joins: either order of the two.
  auto left = world.start(world.control(), testing::ended(volumes->leave(member, "m1")));
  auto third = world.start(world.control(), volumes->join(kDb, "m3"));
  world.run();
  ASSERT_TRUE(left->has_value() && third->value());
  EXPECT_EQ(third->value().value(), &member);
  EXPECT_TRUE(write(with_map(member), 0));
  EXPECT_EQ(member.tracker().state(HotExtent(0)), HotSet::State::kHot);
  leave(member, "m3");
}

// Mutation: no set_tracker() in open_tracker().
TEST_F(MembersTest, AWriteOfAMemberIsMarkedAndTheMarkOutlivesARestart) {
  Member& member = with_map(join());
  ASSERT_TRUE(write(member, 5 * kMiB));
  leave(member);
  // Also by the tracker that the next mirror gets; the first one's marks stay on disk.
  ASSERT_TRUE(write(with_map(join("m2")), 9 * kMiB));
  reopen();
  ASSERT_EQ(found.hot.size(), 1u);
  EXPECT_EQ(found.hot[0].volume, kDb);
  EXPECT_EQ(found.hot[0].extents, (std::vector<LogicalExtent>{LogicalExtent(1), LogicalExtent(2)}));
  EXPECT_TRUE(found.trusted);
}

TEST_F(MembersTest, AnArrayWithoutMirrorsHasNoMarkLog) {
  auto opened = open("db");
  ASSERT_TRUE(world.finish(core(), write_to(opened->volume(), 0)));
  close(std::move(opened));
  reopen();
  EXPECT_FALSE(files.exists("/state/marks-1"));
  ASSERT_TRUE(write(with_map(join()), 0));
  EXPECT_TRUE(files.exists("/state/marks-1"));
}

TEST_F(MembersTest, WordsOfItsTrackerAreFoundAfterARestart) {
  Member& member = join();
  const MapId map{7};
  ASSERT_TRUE(finish(marks->commit({}, {{map.value(), std::vector<meta::ExtentWord>{}}}, {})));
  core().inside([&] {
    member.tracker().add_map(map, MapKind::kCopyAway, ChangeMap(member.size_bytes()));
    member.tracker().set(map, {4 * kMiB, 2 * kRegionBytes});
  });
  ASSERT_TRUE(world.finish(core(), member.tracker().write_back(map)));
  reopen();
  ASSERT_EQ(found.maps.size(), 1u);
  EXPECT_EQ(found.maps[0].map, map.value());
  EXPECT_EQ(found.maps[0].words, (std::vector<meta::ExtentWord>{{1, 3}}));
}

// What a source sends to it has a mark there. Mutation: begin() always asks the tracker.
TEST_F(MembersTest, AWriteOfAMemberWithoutAMapIsNotMarked) {
  Member& member = join();
  ASSERT_TRUE(write(member, 0));
  EXPECT_EQ(member.tracker().state(HotExtent(0)), HotSet::State::kCold);
  EXPECT_FALSE(files.exists("/state/marks-1"));
  ASSERT_TRUE(write(with_map(member), 0));
  EXPECT_EQ(member.tracker().state(HotExtent(0)), HotSet::State::kHot);
}

// Mutation: is_due() does not look for a map again.
TEST_F(MembersTest, AWriteThatWaitedAtTheGateWhileItsVolumeGotAMapIsMarked) {
  Member& member = join();
  std::optional<Gate::Closer> closer;
  core().inside([&] { closer.emplace(member.volume().gate().close()); });
  const auto written = world.start(core(), write_to(member.volume(), 0));
  const auto zeroed = world.start(core(), member.volume().zero({4 * kMiB, 4 * kMiB}, {}));
  world.run();
  with_map(member);
  core().inside([&] { closer.reset(); });
  world.run();
  EXPECT_TRUE(written->value() && zeroed->value());
  for (uint64_t e = 0; e < 2; ++e) {
    EXPECT_EQ(member.tracker().state(HotExtent(e)), HotSet::State::kHot) << e;
  }
}

// Mutation: without the counter of Marking the tracker goes under a write that has marked.
TEST_F(MembersTest, TheTrackerStaysUntilEveryWriteThatMarkedHasEnded) {
  Member& member = join();
  ASSERT_TRUE(write(member, 0));
  testing::FakeBacking& backing = *pool.held.begin()->second;
  backing.hold = true;
  const auto written = world.start(core(), write_to(member.volume(), 0));
  const auto left = start(testing::ended(volumes->leave(member, "m1")));
  EXPECT_FALSE(left->has_value());
  EXPECT_EQ(code_of(finish(volumes->remove("db", false))), Code::kState);
  core().inside([&] { backing.release(); });
  world.run();
  EXPECT_TRUE(written->value());
  EXPECT_TRUE(left->has_value());
}

// Mutation: the write path asks the tracker only before it comes to the gate.
TEST_F(MembersTest, AWriteThatWaitedAtTheGateWhileItsVolumeJoinedIsMarked) {
  auto opened = open("db");
  auto& volume = static_cast<VolumeImpl&>(opened->volume());
  std::optional<Gate::Closer> closer;
  core().inside([&] { closer.emplace(volume.gate().close()); });
  const auto written = world.start(core(), write_to(volume, 0));
  const auto zeroed = world.start(core(), volume.zero({4 * kMiB, 12 * kMiB}, {}));
  world.run();
  Member& member = with_map(join());
  EXPECT_FALSE(written->has_value());
  core().inside([&] { closer.reset(); });
  world.run();
  EXPECT_TRUE(written->value() && zeroed->value());
  for (uint64_t e = 0; e < 4; ++e) {
    EXPECT_EQ(member.tracker().state(HotExtent(e)), HotSet::State::kHot) << e;
  }
  close(std::move(opened));
  leave(member);
}

// Mutation: zero_blocks() asks for all of its range at once (HotSet takes 16 extents).
TEST_F(MembersTest, ALongZeroThatWaitedAtTheGateGoesOnInStepsThatCanBeMarked) {
  ASSERT_TRUE(create("wide", kGiB));
  auto opened = open("wide");
  auto& volume = static_cast<VolumeImpl&>(opened->volume());
  testing::TestCore& home = world.reactor(1);
  ASSERT_EQ(&volume.core(), &home);
  std::optional<Gate::Closer> closer;
  home.inside([&] { closer.emplace(volume.gate().close()); });
  const auto zeroed = world.start(home, volume.zero({0, kGiB}, {}));
  world.run();
  Member& member = with_map(join("m1", VolumeNumber(2)));
  home.inside([&] { closer.reset(); });
  world.run();
  EXPECT_TRUE(zeroed->value());
  EXPECT_EQ(member.tracker().state(HotExtent(255)), HotSet::State::kHot);
  close(std::move(opened));
  leave(member);
}

TEST_F(MembersTest, AReadOnlyMemberIsListedAndOpenedSoAndOldClientsKeepWhatTheyHave) {
  Member& member = join();
  auto before = open("db");
  world.control().inside([&] { member.set_access(Access::read_only()); });
  auto after = open("db");
  EXPECT_FALSE(before->read_only());
  EXPECT_TRUE(after->read_only());
  EXPECT_TRUE(volumes->find("db")->read_only && volumes->list()[0].read_only);
  const auto clients = member.clients();
  ASSERT_EQ(clients.size(), 2u);
  EXPECT_FALSE(clients[0].read_only);
  EXPECT_TRUE(clients[1].read_only);
  close(std::move(before));
  close(std::move(after));
  leave(member);
  EXPECT_FALSE(volumes->find("db")->read_only) << "no mirror says so any more";
}

// Mutation: may_open() does not ask the access.
TEST_F(MembersTest, ARefusedMemberIsOpenedByNobodyAndTheWordsAreThoseOfTheMirror) {
  Member& member = join();
  const Error why(Code::kWriteProtected, "db is a mirror of log", "duplex split m1");
  world.control().inside([&] { member.set_access(Access::refused(why)); });
  const auto refused = volumes->open("db", "late", [] {});
  EXPECT_EQ(code_of(refused), Code::kWriteProtected);
  EXPECT_EQ(told(refused.error()), told(why));
  EXPECT_TRUE(volumes->find("db")) << "it is still there to be seen";
  world.control().inside([&] { member.set_access(Access::read_write()); });
  close(open("db"));
  leave(member);
}

// Mutation: may_open() does not look at the flag (trace F37).
TEST_F(MembersTest, AnInconsistentVolumeIsRefusedInsideAMirrorAndForEverAfterIt) {
  Member& member = join();
  const Uuid content = Uuid::from_random(1, 2);
  world.control().inside([&] { member.committed(content, false); });
  EXPECT_EQ(member.row().content_id, content);
  auto refused = volumes->open("db", "c", [] {});
  EXPECT_EQ(code_of(refused), Code::kState);
  EXPECT_EQ(refused.error().next(), "duplex mirror show m1");
  leave(member);
  refused = volumes->open("db", "c", [] {});
  EXPECT_EQ(code_of(refused), Code::kState);
  EXPECT_NE(refused.error().next().find("duplex volume delete db"), std::string_view::npos);
  EXPECT_FALSE(volumes->info("db")->consistent);
  // A resize stores the whole row: the flag is in it.
  ASSERT_TRUE(finish(volumes->resize("db", 32 * kMiB, false)));
  EXPECT_FALSE(pool.rows.begin()->second.consistent);
  EXPECT_EQ(pool.rows.begin()->second.content_id, content);
  reopen();
  EXPECT_EQ(code_of(volumes->open("db", "c", [] {})), Code::kState);
  EXPECT_TRUE(finish(volumes->remove("db", false)));
}

TEST_F(MembersTest, DisconnectReturnsWhenTheLastClientHasGone) {
  Member& member = join();
  int told = 0;
  auto first = open("db", [&] { ++told; });
  auto second = open("db", [&] { ++told; });
  const auto gone = start(member.disconnect());
  EXPECT_EQ(told, 2);
  close(std::move(first));
  EXPECT_FALSE(gone->has_value());
  close(std::move(second));
  EXPECT_TRUE(gone->value());
  EXPECT_TRUE(finish(member.disconnect()));
  leave(member);
}

TEST_F(MembersTest, DisconnectGivesUpAtItsDeadlineAndNamesWhoIsStillThere) {
  Member& member = join();
  auto stuck = open("db");
  const auto gone = start(member.disconnect());
  world.control().pass(Member::kDisconnectTime - 1);
  world.run();
  EXPECT_FALSE(gone->has_value());
  world.control().pass(1);
  world.run();
  ASSERT_TRUE(gone->has_value());
  EXPECT_EQ(code_of(gone->value()), Code::kTimeout);
  EXPECT_NE(gone->value().error().message().find("client of db"), std::string_view::npos);
  close(std::move(stuck));
  leave(member);
}

}  // namespace
}  // namespace duplex::volume
