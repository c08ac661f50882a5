#include "meta/store.h"

#include <gtest/gtest.h>

#include "meta/schema.h"
#include "meta/sqlite.h"
#include "meta/tables.h"
#include "meta/test_world.h"

namespace duplex::meta {
namespace {

using test::Machine;
using test::MemoryFiles;

using Opened = Result<std::unique_ptr<Store>>;

StoreOptions options() { return {"/var/lib/duplex", ArrayId(0x400104), "west"}; }

DeviceRow device_row(uint16_t n) {
  DeviceRow row;
  row.id = DeviceId(n);
  row.uuid = Uuid::from_random(n, 1);
  row.name = "disk" + std::to_string(n);
  row.path = "/dev/disk" + std::to_string(n);
  row.size_bytes = kMaxBytes;
  row.extent_bytes = kDefaultExtentBytes;
  row.extent_count = 1000;
  row.log_offset = 128 * kKiB;
  row.log_bytes = kMiB;
  row.data_offset = 4 * kMiB;
  row.clean_extents = 5;
  row.log_sequence = UINT64_MAX;
  row.life = n;
  return row;
}
BackingRow backing_row(uint32_t n, uint16_t device = 0) {
  return {BackingId(n), Uuid::from_random(n, 2), "PD" + std::to_string(n), 10 * kGiB,
          n % 2 == 0,   DeviceId(device)};
}
VolumeRow volume_row(uint16_t n, uint32_t backing) {
  return {VolumeNumber(n),
          "vol" + std::to_string(n),
          10 * kGiB,
          BackingId(backing),
          Uuid::from_random(n, 3),
          n % 2 == 0,
          -5};
}
ExtentRow extent_row(uint32_t backing, uint32_t le, uint16_t device, uint32_t pe) {
  return {BackingId(backing), LogicalExtent(le), DeviceId(device), PhysicalExtent(pe)};
}
MirrorRow mirror_row(uint32_t n, uint16_t source, uint16_t target) {
  MirrorRow row;
  row.id = MirrorId(n);
  row.name = "m" + std::to_string(n);
  row.source = VolumeNumber(source);
  row.target = VolumeNumber(target);
  row.relation = 5;
  row.access = 2;
  row.then = 1;
  row.reason = 255;
  row.cut = 9;
  row.created_us = -7;
  return row;
}
CutRow cut_row(uint64_t id) {
  return {id,
          Epoch(id + 100),
          -1,
          350,
          3,
          {{MirrorId(1), VolumeNumber(2), Uuid::from_random(id, 4)},
           {MirrorId(2), VolumeNumber(3), Uuid::from_random(id, 5)}}};
}
// Three volumes, the second a target of the first and the source of the third.
Transaction mirror_rows() {
  return {PutBacking{backing_row(11)},      PutBacking{backing_row(12)},
          PutBacking{backing_row(13)},      PutVolume{volume_row(11, 11)},
          PutVolume{volume_row(12, 12)},    PutVolume{volume_row(13, 13)},
          PutMirror{mirror_row(1, 11, 12)}, PutMirror{mirror_row(2, 12, 13)}};
}
JobRow job_row(uint32_t id) {
  return {id, "import", "db", "/tmp/a b'\"", "running", "", 1, UINT64_MAX, 0, 7, 0};
}
EventRow event_row(std::string text) {
  return {0, 99, {Severity::kWarning, "pool_full", "pool", std::move(text), "duplex device add"}};
}

// A store with two devices, two backings and a volume.
Transaction base_rows() {
  return {PutDevice{device_row(1)}, PutDevice{device_row(2)}, PutBacking{backing_row(1)},
          PutBacking{backing_row(2, 2)}, PutVolume{volume_row(1, 1)}};
}

class StoreTest : public testing::Test {
 protected:
  Opened open(StoreOptions with = options()) {
    return machine.run(Store::open(files, machine.store, machine.rng, std::move(with)));
  }
  void open_store() {
    auto opened = open();
    ASSERT_TRUE(opened) << opened.error().describe();
    store = *std::move(opened);
  }
  Result<void> commit(Transaction transaction) {
    return machine.run(store->commit(std::move(transaction)));
  }
  Snapshot load() {
    auto snapshot = machine.run(store->load());
    EXPECT_TRUE(snapshot) << snapshot.error().describe();
    return snapshot ? *snapshot : Snapshot{};
  }
  void reopen() {
    ASSERT_TRUE(machine.run(store->close()));
    store.reset();
    open_store();
  }
  Code refusal(Transaction transaction) {
    const Snapshot before = load();
    const auto result = commit(std::move(transaction));
    EXPECT_EQ(load(), before);
    return result ? Code::kSystem : result.error().code();
  }

  MemoryFiles files;
  Machine machine;
  std::unique_ptr<Store> store;
};

TEST_F(StoreTest, ANewStoreKnowsItsArray) {
  open_store();
  const Snapshot snapshot = load();
  EXPECT_EQ(snapshot.array.id, ArrayId(0x400104));
  EXPECT_EQ(snapshot.array.name, "west");
  EXPECT_FALSE(snapshot.array.uuid.is_null());
  EXPECT_NE(snapshot.array.uuid, snapshot.array.incarnation);
  EXPECT_TRUE(snapshot.devices.empty());
  reopen();
  EXPECT_EQ(load(), snapshot);
}

TEST_F(StoreTest, TheHighestBackingNumberOutlivesItsBacking) {
  open_store();
  ASSERT_TRUE(commit(base_rows()));
  ASSERT_TRUE(commit({PutBacking{backing_row(7)}}));
  ASSERT_TRUE(commit({DropBacking{BackingId(7)}, PutBacking{backing_row(1)}}));
  EXPECT_EQ(load().array.last_backing, 7u);
  reopen();
  EXPECT_EQ(load().array.last_backing, 7u);
}

TEST_F(StoreTest, EveryKindOfChangeComesBackFromLoad) {
  open_store();
  Snapshot expected = load();
  expected.array.epoch = UINT64_MAX;
  expected.array.last_backing = UINT32_MAX;
  expected.array.last_job = 3;
  expected.array.clean_stop = true;
  Transaction all = base_rows();
  all.push_back(PutArray{expected.array});
  all.push_back(PutDevice{device_row(3)});
  all.push_back(DropDevice{DeviceId(3)});
  all.push_back(SetCleanExtents{DeviceId(1), 77});
  all.push_back(SetLogSequence{DeviceId(2), 78});
  all.push_back(SetLife{DeviceId(1), UINT64_MAX});
  all.push_back(PutBacking{backing_row(3)});
  all.push_back(DropBacking{BackingId(3)});
  all.push_back(PutVolume{volume_row(2, 2)});
  all.push_back(DropVolume{VolumeNumber(2)});
  for (uint32_t le : {7u, 0u, 3u}) all.push_back(MapExtent{extent_row(1, le, 1, 10 + le)});
  all.push_back(MapExtent{extent_row(2, 0, 2, 10)});
  all.push_back(UnmapExtent{extent_row(1, 3, 1, 13)});
  all.push_back(UnmapExtent{extent_row(1, 7, 1, 17)});
  all.push_back(Scrubbed{{DeviceId(1), PhysicalExtent(13)}});
  all.push_back(PutJob{job_row(1)});
  all.push_back(PutJob{job_row(2)});
  all.push_back(DropJob{1});
  all.push_back(AddEvent{event_row("full")});
  const auto done = commit(all);
  ASSERT_TRUE(done) << done.error().describe();

  expected.devices = {device_row(1), device_row(2)};
  expected.devices[0].clean_extents = 77;
  expected.devices[1].log_sequence = 78;
  expected.devices[0].life = UINT64_MAX;
  expected.backings = {backing_row(1), backing_row(2, 2)};
  expected.volumes = {volume_row(1, 1)};
  expected.extents = {extent_row(1, 0, 1, 10), extent_row(2, 0, 2, 10)};
  expected.scrub = {{DeviceId(1), PhysicalExtent(17)}};
  expected.jobs = {job_row(2)};
  EXPECT_EQ(load(), expected);
  reopen();
  EXPECT_EQ(load(), expected);
  const auto events = machine.run(store->events(0, 10));
  ASSERT_TRUE(events);
  ASSERT_EQ(events->size(), 1u);
  EXPECT_EQ((*events)[0].event.text, "full");
  EXPECT_EQ((*events)[0].event.severity, Severity::kWarning);
  EXPECT_EQ((*events)[0].id, 1u);
}

TEST_F(StoreTest, MirrorsGroupsCutsMapsAndMarksComeBackFromLoad) {
  open_store();
  Transaction all = mirror_rows();
  VolumeRow target = volume_row(12, 12);
  target.consistent = false;
  const GroupRow group{"g", {MirrorId(1), MirrorId(2)}};
  const MapRow map{UINT32_MAX, 7, {{0, 1}, {5, UINT64_MAX}, {UINT32_MAX, 3}}};
  const MapRow empty{2, UINT64_MAX, {}};
  const HotMarksRow hot{VolumeNumber(11), {LogicalExtent(0), LogicalExtent(UINT32_MAX)}};
  const MarkLogRow log{UINT64_MAX, 12, false, true, 11};
  for (Change change : Transaction{
           PutVolume{target}, PutMirror{mirror_row(9, 13, 11)}, DropMirror{MirrorId(9)},
           PutGroup{group}, PutGroup{{"h", {}}}, DropGroup{"h"}, PutCut{cut_row(1)},
           PutCut{cut_row(7)}, DropCut{7}, PutMap{map}, PutMap{empty}, PutMap{{3, 1, {{1, 1}}}},
           DropMap{3}, PutHotMarks{hot}, PutHotMarks{{VolumeNumber(1), {LogicalExtent(1)}}},
           DropHotMarks{VolumeNumber(1)}, PutMarkLog{log}}) {
    all.push_back(std::move(change));
  }
  const auto done = commit(all);
  ASSERT_TRUE(done) << done.error().describe();
  for (int round = 0; round < 2; ++round) {
    const Snapshot snapshot = load();
    EXPECT_EQ(snapshot.array.last_mirror, 9u);
    EXPECT_EQ(snapshot.array.last_cut, 7u);
    EXPECT_EQ(snapshot.array.epoch, 107u) << "no epoch is handed out twice";
    EXPECT_EQ(snapshot.volumes, (std::vector{volume_row(11, 11), target, volume_row(13, 13)}));
    EXPECT_EQ(snapshot.mirrors, (std::vector{mirror_row(1, 11, 12), mirror_row(2, 12, 13)}));
    EXPECT_EQ(snapshot.groups, std::vector{group});
    EXPECT_EQ(snapshot.cuts, std::vector{cut_row(1)});
    EXPECT_EQ(snapshot.maps, (std::vector{empty, map}));
    EXPECT_EQ(snapshot.hot_marks, std::vector{hot});
    EXPECT_EQ(snapshot.mark_log, log);
    reopen();
  }
}

TEST_F(StoreTest, APutOfAGroupACutOrAMapReplacesAllItHolds) {
  open_store();
  ASSERT_TRUE(commit(mirror_rows()));
  ASSERT_TRUE(commit({PutGroup{{"g", {MirrorId(1), MirrorId(2)}}}, PutCut{cut_row(1)},
                      PutMap{{1, 1, {{1, 1}, {2, 2}}}},
                      PutHotMarks{{VolumeNumber(1), {LogicalExtent(1), LogicalExtent(2)}}}}));
  CutRow cut = cut_row(1);
  cut.state = 4;
  cut.members.pop_back();
  const GroupRow group{"g", {MirrorId(2)}};
  const MapRow map{1, 2, {{2, 1}}};
  const HotMarksRow hot{VolumeNumber(1), {LogicalExtent(3)}};
  ASSERT_TRUE(commit({PutGroup{group}, PutCut{cut}, PutMap{map}, PutHotMarks{hot}}));
  const Snapshot snapshot = load();
  EXPECT_EQ(snapshot.groups, std::vector{group});
  EXPECT_EQ(snapshot.cuts, std::vector{cut});
  EXPECT_EQ(snapshot.maps, std::vector{map});
  EXPECT_EQ(snapshot.hot_marks, std::vector{hot});
}

TEST_F(StoreTest, AChangeThatContradictsTheMirrorsIsRefusedWhole) {
  open_store();
  ASSERT_TRUE(commit(mirror_rows()));
  ASSERT_TRUE(commit({PutGroup{{"g", {MirrorId(1)}}}, PutCut{cut_row(1)}}));
  const auto refused = [&](Change change) {
    return refusal({PutJob{job_row(9)}, std::move(change)}) == Code::kState;
  };
  EXPECT_TRUE(refused(DropVolume{VolumeNumber(11)})) << "the source of a mirror";
  EXPECT_TRUE(refused(DropVolume{VolumeNumber(13)})) << "the target of a mirror";
  EXPECT_TRUE(refused(PutMirror{mirror_row(3, 11, 99)})) << "no such volume";
  EXPECT_TRUE(refused(PutMirror{mirror_row(3, 11, 11)})) << "onto itself";
  EXPECT_TRUE(refused(PutMirror{mirror_row(3, 11, 13)})) << "a target of two mirrors";
  MirrorRow mirror = mirror_row(3, 13, 11);
  mirror.name = "m1";
  EXPECT_TRUE(refused(PutMirror{mirror})) << "the name is taken";
  EXPECT_TRUE(refused(DropMirror{MirrorId(1)})) << "in a group";
  EXPECT_TRUE(refused(PutGroup{{"g", {MirrorId(9)}}})) << "no such mirror";
  EXPECT_TRUE(refused(PutGroup{{"g", {MirrorId(1), MirrorId(1)}}})) << "a member twice";
  EXPECT_TRUE(refused(DropMirror{MirrorId(9)}));
  EXPECT_TRUE(refused(DropGroup{"h"}));
  EXPECT_TRUE(refused(DropCut{9}));
  EXPECT_TRUE(refused(DropMap{9}));
  EXPECT_TRUE(refused(DropHotMarks{VolumeNumber(9)}));
  EXPECT_TRUE(commit({DropGroup{"g"}, DropMirror{MirrorId(1)}, DropVolume{VolumeNumber(11)}}))
      << "the cut names what may be gone";
}

TEST_F(StoreTest, APutReplacesTheRowOfItsKey) {
  open_store();
  ASSERT_TRUE(commit(base_rows()));
  DeviceRow device = device_row(1);
  device.path = "/dev/moved";
  VolumeRow volume = volume_row(1, 2);
  volume.name = "renamed";
  BackingRow backing = backing_row(2);  // from any device now
  ASSERT_TRUE(commit({PutDevice{device}, PutVolume{volume}, PutBacking{backing}}));
  const Snapshot snapshot = load();
  EXPECT_EQ(snapshot.devices[0], device);
  EXPECT_EQ(snapshot.volumes, std::vector{volume});
  EXPECT_EQ(snapshot.backings[1], backing);
}

TEST_F(StoreTest, AChangeThatContradictsTheStateIsRefusedWhole) {
  open_store();
  ASSERT_TRUE(commit(base_rows()));
  ASSERT_TRUE(commit({MapExtent{extent_row(1, 0, 1, 5)}, MapExtent{extent_row(1, 1, 1, 6)},
                      UnmapExtent{extent_row(1, 1, 1, 6)}}));
  const auto refused = [&](Change change) {
    return refusal({PutJob{job_row(9)}, std::move(change)}) == Code::kState;
  };
  EXPECT_TRUE(refused(MapExtent{extent_row(2, 0, 1, 5)})) << "two owners of one extent";
  EXPECT_TRUE(refused(MapExtent{extent_row(1, 0, 1, 7)})) << "two places of one extent";
  EXPECT_TRUE(refused(MapExtent{extent_row(1, 2, 1, 6)})) << "an extent that is not scrubbed";
  EXPECT_TRUE(refused(MapExtent{extent_row(9, 0, 1, 7)})) << "no such backing";
  EXPECT_TRUE(refused(MapExtent{extent_row(1, 2, 9, 7)})) << "no such device";
  EXPECT_TRUE(refused(UnmapExtent{extent_row(1, 0, 1, 8)})) << "mapped elsewhere";
  EXPECT_TRUE(refused(UnmapExtent{extent_row(1, 4, 1, 8)})) << "not mapped";
  EXPECT_TRUE(refused(Scrubbed{{DeviceId(1), PhysicalExtent(5)}})) << "in use";
  EXPECT_TRUE(refused(DropDevice{DeviceId(1)})) << "holds extents";
  EXPECT_TRUE(refused(DropDevice{DeviceId(2)})) << "a backing is bound to it";
  EXPECT_TRUE(refused(DropDevice{DeviceId(9)})) << "no such device";
  EXPECT_TRUE(refused(DropBacking{BackingId(1)})) << "a volume points at it";
  EXPECT_TRUE(refused(DropVolume{VolumeNumber(9)})) << "no such volume";
  EXPECT_TRUE(refused(DropJob{5})) << "no such job";
  EXPECT_TRUE(refused(SetCleanExtents{DeviceId(9), 1})) << "no such device";
  EXPECT_TRUE(refused(SetLogSequence{DeviceId(9), 1})) << "no such device";
  EXPECT_TRUE(refused(SetLife{DeviceId(9), 1})) << "no such device";
  EXPECT_TRUE(refused(PutVolume{volume_row(2, 9)})) << "no such backing";
  DeviceRow device = device_row(3);
  device.name = "disk1";
  EXPECT_TRUE(refused(PutDevice{device})) << "the name is taken";
  EXPECT_TRUE(commit({PutJob{job_row(9)}})) << "the store goes on";
}

TEST_F(StoreTest, EventsAreNumberedAndOnlyTheNewestAreKept) {
  open_store();
  for (int batch = 0; batch < 11; ++batch) {
    Transaction many;
    for (int i = 0; i < 1000; ++i)
      many.push_back(AddEvent{event_row(std::to_string(batch * 1000 + i))});
    ASSERT_TRUE(commit(std::move(many)));
  }
  const auto all = machine.run(store->events(0, SIZE_MAX));
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), kEventsKept);
  EXPECT_EQ(all->front().id, 1001u);
  EXPECT_EQ(all->back().event.text, "10999");
  const auto newest = machine.run(store->events(0, 2));
  EXPECT_EQ((*newest)[0].id, 10999u);
  EXPECT_EQ((*newest)[1].id, 11000u);
  const auto following = machine.run(store->events(5000, 2));
  EXPECT_EQ((*following)[0].id, 5001u);
  EXPECT_EQ((*following)[1].id, 5002u);
  EXPECT_TRUE(machine.run(store->events(11000, 10))->empty());
}

// --- who may open

TEST_F(StoreTest, ASecondOpenerIsRefused) {
  open_store();
  const auto second = open();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), Code::kBusy);
  EXPECT_NE(second.error().message().find("/var/lib/duplex"), std::string_view::npos);
  ASSERT_TRUE(machine.run(store->close()));
  EXPECT_TRUE(open());
}

TEST_F(StoreTest, AnotherArraysStateIsRefused) {
  open_store();
  store.reset();
  StoreOptions other = options();
  other.array_id = ArrayId(0x400105);
  EXPECT_EQ(open(other).error().code(), Code::kState);
  other = options();
  other.array_name = "east";
  const auto opened = open(other);
  EXPECT_EQ(opened.error().code(), Code::kState);
  EXPECT_NE(opened.error().message().find("belongs to array west (0x400104)"),
            std::string_view::npos)
      << opened.error().message();
}

std::unique_ptr<Database> raw_database(MemoryFiles& files) {
  auto opened = Database::open(files, "/var/lib/duplex/state.db", "here");
  EXPECT_TRUE(opened);
  EXPECT_TRUE((*opened)->execute("PRAGMA locking_mode = EXCLUSIVE"));
  return *std::move(opened);
}

TEST_F(StoreTest, ANewerStoreIsRefusedAndLeftAsItIs) {
  open_store();
  ASSERT_TRUE(machine.run(store->close()));
  store.reset();
  ASSERT_TRUE(raw_database(files)->execute("PRAGMA user_version = 4"));
  const auto before = files.image();
  const auto opened = open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), Code::kNotSupported);
  EXPECT_NE(opened.error().message().find("newer version"), std::string_view::npos);
  EXPECT_EQ(files.image().at("/var/lib/duplex/state.db"), before.at("/var/lib/duplex/state.db"));
}

// Mutations: version 2 without DEFAULT 1 for `consistent`, or a step that recreates volumes;
// version 3 with DEFAULT 1 for `life`.
TEST_F(StoreTest, AStoreOfVersion1IsBroughtUpAndKeepsItsRows) {
  files.make_directories("/var/lib/duplex");
  {
    const auto old = raw_database(files);
    ASSERT_TRUE(migrate(*old, 0, migrations().first(1)));
    const std::string id = "'00112233445566778899aabbccddeeff'";
    const std::string rows =
        "INSERT INTO array VALUES(1, 4194564, 'west', x" + id + ", x" + id + ", 5, 1, 3, 1);" +
        "INSERT INTO devices VALUES(1, x" + id + ", 'd', '/d', 9, 8, 7, 6, 5, 4, 3, 2);" +
        "INSERT INTO backings VALUES(1, x" + id + ", 'PD1', 10737418240, 0, NULL);" +
        "INSERT INTO volumes VALUES(1, 'vol1', 10737418240, 1, x" + id + ", 0, -5);" +
        "INSERT INTO events VALUES(4, 99, 1, 'c', 's', 't', 'n');";
    ASSERT_TRUE(old->execute(rows.c_str()));
  }
  open_store();
  const Snapshot snapshot = load();
  EXPECT_EQ(snapshot.array.epoch, 5u);
  EXPECT_EQ(snapshot.array.last_job, 3u);
  EXPECT_EQ(snapshot.array.last_mirror, 0u);
  EXPECT_EQ(snapshot.array.last_cut, 0u);
  ASSERT_EQ(snapshot.devices.size(), 1u);
  EXPECT_EQ(snapshot.devices[0].log_sequence, 2u);
  EXPECT_EQ(snapshot.devices[0].life, 0u) << "its labels have none either";
  ASSERT_EQ(snapshot.volumes.size(), 1u);
  EXPECT_EQ(snapshot.volumes[0].name, "vol1");
  EXPECT_EQ(snapshot.volumes[0].created_us, -5);
  EXPECT_TRUE(snapshot.volumes[0].consistent);
  EXPECT_EQ(snapshot.mark_log, MarkLogRow{});
  EXPECT_EQ(machine.run(store->events(0, 9))->size(), 1u);
  ASSERT_TRUE(commit(mirror_rows()));
  const Snapshot after = load();
  reopen();
  EXPECT_EQ(load(), after);
}

// Mutation: version 3 leaves `progress_bytes`, which nobody fills any more, in `mirrors`.
TEST_F(StoreTest, AStoreOfVersion2KeepsItsMirrorsAndTakesNewOnes) {
  files.make_directories("/var/lib/duplex");
  {
    const auto old = raw_database(files);
    ASSERT_TRUE(migrate(*old, 0, migrations().first(2)));
    const std::string id = "'00112233445566778899aabbccddeeff'";
    const std::string rows = "INSERT INTO array VALUES(1, 4194564, 'west', x" + id + ", x" + id +
                             ", 5, 1, 3, 1, 9, 7);" + "INSERT INTO devices VALUES(1, x" + id +
                             ", 'd', '/d', 9, 8, 7, 6, 5, 4, 3, 2);" +
                             "INSERT INTO backings VALUES(1, x" + id +
                             ", 'PD1', 10737418240, 0, NULL), (2, "
                             "x'01112233445566778899aabbccddeeff', 'PD2', 10737418240, 0, NULL);" +
                             "INSERT INTO volumes VALUES(1, 'p', 10737418240, 1, x" + id +
                             ", 0, -5, 1), " + "(2, 's', 10737418240, 2, x" + id + ", 0, -5, 1);" +
                             "INSERT INTO mirrors VALUES(9, 'm', 1, 2, 5, 2, 0, 0, 7, 4096, 77);";
    const auto stored = old->execute(rows.c_str());
    ASSERT_TRUE(stored) << stored.error().describe();
  }
  open_store();
  ASSERT_EQ(load().mirrors.size(), 1u);
  MirrorRow row = load().mirrors[0];
  EXPECT_EQ(row.name, "m");
  EXPECT_EQ(row.cut, 7u);
  EXPECT_EQ(row.created_us, 77);
  row.name = "again";
  ASSERT_TRUE(commit({DropMirror{row.id}}));
  ASSERT_TRUE(commit({PutMirror{row}}));
  EXPECT_EQ(load().mirrors[0].name, "again");
}

// Mutation: decode() in tables.cc accepts any order.
TEST_F(StoreTest, MapsAndMarksThatNobodyWroteAreDamage) {
  open_store();
  ASSERT_TRUE(machine.run(store->close()));
  store.reset();
  for (const char* sql :
       {"INSERT INTO maps VALUES(1, 0, zeroblob(12))",
        "INSERT INTO maps VALUES(1, 0, x'050000000100000000000000050000000100000000000000')",
        "INSERT INTO hot_marks VALUES(1, x'')",
        "INSERT INTO hot_marks VALUES(1, x'0200000001000000')",
        "INSERT INTO hot_marks VALUES(65536, x'02000000')", "DELETE FROM mark_log"}) {
    const auto whole = files.content("/var/lib/duplex/state.db");
    ASSERT_TRUE(raw_database(files)->execute(sql)) << sql;
    open_store();
    const auto loaded = machine.run(store->load());
    ASSERT_FALSE(loaded) << sql;
    EXPECT_EQ(loaded.error().code(), Code::kCorrupt) << sql;
    store.reset();
    files.remove("/var/lib/duplex/state.db-wal");
    files.content("/var/lib/duplex/state.db") = whole;
  }
}

TEST_F(StoreTest, ADatabaseOfAnotherProgramIsRefused) {
  files.make_directories("/var/lib/duplex");
  ASSERT_TRUE(raw_database(files)->execute("CREATE TABLE photos(x)"));
  EXPECT_EQ(open().error().code(), Code::kState);
}

TEST_F(StoreTest, AFileThatIsNoDatabaseIsCorrupt) {
  files.make_directories("/var/lib/duplex");
  int error = 0;
  const std::vector<std::byte> text(4096, std::byte{'x'});
  files.open("/var/lib/duplex/state.db", true, &error)->write(0, text);
  const auto opened = open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), Code::kCorrupt);
  EXPECT_NE(opened.error().next().find("--rebuild"), std::string_view::npos);
}

TEST_F(StoreTest, DamagedBytesAreFoundAtTheOpen) {
  open_store();
  ASSERT_TRUE(commit(base_rows()));
  for (uint32_t i = 0; i < 500; ++i) ASSERT_TRUE(commit({MapExtent{extent_row(1, i, 1, i * 3)}}));
  ASSERT_TRUE(machine.run(store->close()));
  store.reset();
  const auto whole = files.content("/var/lib/duplex/state.db");
  std::mt19937 random(1);
  for (int round = 0; round < 1500; ++round) {
    auto& bytes = files.content("/var/lib/duplex/state.db");
    bytes = whole;
    const size_t at = round < 500 ? static_cast<size_t>(round) : random() % whole.size();
    const size_t count = std::min<size_t>(round % 3 == 0 ? 1 : 40, whole.size() - at);
    for (size_t n = 0; n < count; ++n) bytes[at + n] ^= static_cast<std::byte>(1 + random() % 255);
    const auto opened = open();
    ASSERT_FALSE(opened) << "damage at " << at;
    ASSERT_EQ(opened.error().code(), Code::kCorrupt) << at << opened.error().describe();
  }
}

TEST_F(StoreTest, APageAtTheWrongPlaceIsFoundAtTheOpen) {
  open_store();
  ASSERT_TRUE(commit(base_rows()));
  ASSERT_TRUE(machine.run(store->close()));
  store.reset();
  auto& bytes = files.content("/var/lib/duplex/state.db");
  std::copy_n(bytes.begin() + 2 * kPageBytes, kPageBytes, bytes.begin() + 3 * kPageBytes);
  EXPECT_EQ(open().error().code(), Code::kCorrupt);
}

TEST(Schema, MissingStepsRunInOrderAndOnlyThose) {
  MemoryFiles files;
  files.make_directories("/var/lib/duplex");
  constexpr const char* kSteps[] = {"CREATE TABLE a(x); INSERT INTO a VALUES(1);",
                                    "UPDATE a SET x = x * 10 + 2;", "UPDATE a SET x = x * 10 + 3;"};
  const auto database = raw_database(files);
  ASSERT_TRUE(migrate(*database, 0, std::span(kSteps).first(1)));
  EXPECT_EQ(stored_version(*database, 3), 1u);
  ASSERT_TRUE(migrate(*database, 1, kSteps));
  EXPECT_EQ(database->query("SELECT x FROM a"), 123);
  EXPECT_EQ(stored_version(*database, 3), 3u);
  EXPECT_EQ(stored_version(*database, 2).error().code(), Code::kNotSupported);
}

}  // namespace
}  // namespace duplex::meta
