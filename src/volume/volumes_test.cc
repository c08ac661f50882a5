// The registry of volumes on a pool in memory.
#include "volume/volumes.h"

#include <gtest/gtest.h>

#include "volume/volume_test_kit.h"

namespace duplex::volume {
namespace {

using testing::FakeBacking;
using testing::TestWorld;

class NoStore final : public meta::Store {
 public:
  rt::Task<Result<meta::Snapshot>> load() override { co_return fail(Code::kNotSupported); }
  rt::Task<Result<void>> commit(meta::Transaction) override { co_return fail(Code::kNotSupported); }
  rt::Task<Result<std::vector<meta::EventRow>>> events(uint64_t, size_t) override {
    co_return fail(Code::kNotSupported);
  }
  rt::Task<Result<void>> close() override { co_return fail(Code::kNotSupported); }
};

class FakePool final : public pool::Pool {
 public:
  explicit FakePool(rt::Core& control) : control_(control) {}

  std::optional<Code> refuse;  // every change
  bool slow = false;           // every change waits for go
  rt::Event go;
  std::map<BackingId, std::unique_ptr<FakeBacking>> held;
  std::map<BackingId, meta::VolumeRow> rows;  // the store

  rt::Task<Result<pool::Backing*>> create_backing(pool::BackingSpec spec, rt::Core&,
                                                  meta::VolumeRow volume) override {
    CO_TRY(co_await change());
    const BackingId id(++last_);
    volume.backing = id;
    rows[id] = volume;
    const std::string name = spec.name.empty() ? "PD" + std::to_string(last_) : spec.name;
    held[id] = std::make_unique<FakeBacking>(spec.size_bytes, 64 * kKiB, id, name);
    co_return held[id].get();
  }
  rt::Task<Result<void>> drop_backing(BackingId id, VolumeNumber) override {
    CO_TRY(co_await change());
    held.erase(id);
    rows.erase(id);
    co_return Result<void>();
  }
  rt::Task<Result<void>> resize_backing(BackingId id, meta::VolumeRow volume) override {
    CO_TRY(co_await change());
    held[id]->set_size(volume.size_bytes);
    rows[id] = volume;
    co_return Result<void>();
  }
  rt::Task<Result<pool::Backing*>> attach_backing(BackingId id, rt::Core&) override {
    co_return held.at(id).get();
  }
  std::vector<BackingInfo> backings() const override {
    std::vector<BackingInfo> all;
    for (const auto& [id, b] : held) {
      all.push_back({id, b->name(), b->size_bytes(), b->allocated_bytes(), true, "fast"});
    }
    return all;
  }

  rt::Task<> close() override { co_return; }
  rt::Task<Result<AddedDevice>> add_device(pool::AddDevice) override {
    co_return fail(Code::kNotSupported);
  }
  rt::Task<Result<void>> remove_device(std::string) override {
    co_return fail(Code::kNotSupported);
  }
  rt::Task<Result<pool::DeviceInfo>> resize_device(std::string) override {
    co_return fail(Code::kNotSupported);
  }
  std::vector<pool::DeviceInfo> devices() const override { return {}; }
  Result<pool::DeviceInfo> device(const std::string&) const override {
    return fail(Code::kNoDevice);
  }
  rt::Task<Result<std::vector<pool::PhysicalRun>>> device_map(std::string) override {
    co_return fail(Code::kNotSupported);
  }
  pool::PoolUsage usage() const override { return {}; }

 private:
  rt::Task<Result<void>> change() {
    EXPECT_TRUE(control_.is_current());
    if (slow) co_await go.wait();
    if (refuse) co_return fail(*refuse);
    co_return Result<void>();
  }
  rt::Core& control_;
  uint32_t last_ = 0;
};

class Events final : public EventSink {
 public:
  void emit(Event event) override { codes.push_back(event.code + " " + event.subject); }
  std::vector<std::string> codes;
};

class VolumesTest : public ::testing::Test {
 protected:
  VolumesTest() { reopen(); }
  // As a restart would: from the rows of the store.
  void reopen() {
    meta::Snapshot snapshot;
    for (const auto& [id, row] : pool.rows) snapshot.volumes.push_back(row);
    auto opened = world.finish(world.control(), Volumes::open(world, pool, events, snapshot));
    ASSERT_TRUE(opened);
    volumes = *std::move(opened);
  }
  template <class T>
  T finish(rt::Task<T> task) {
    return world.finish(world.control(), std::move(task));
  }
  template <class T>
  std::shared_ptr<std::optional<T>> start(rt::Task<T> task) {
    auto result = world.start(world.control(), std::move(task));
    world.run();
    return result;
  }
  static CreateVolume request(std::string name, uint64_t size = kMiB) {
    CreateVolume made;
    made.name = std::move(name);
    made.size_bytes = size;
    return made;
  }
  Result<Volumes::Created> create(std::string name, uint64_t size = kMiB) {
    return finish(volumes->create(request(std::move(name), size)));
  }
  Result<Volumes::Created> create_numbered(std::string name, uint16_t number) {
    CreateVolume numbered = request(std::move(name));
    numbered.number = VolumeNumber(number);
    return finish(volumes->create(numbered));
  }
  template <class R>
  static Code code_of(const R& result) {
    EXPECT_FALSE(result.has_value());
    return result.error().code();
  }
  std::unique_ptr<OpenVolume> open(const std::string& name, std::function<void()> gone = [] {}) {
    auto opened = volumes->open(name, "client of " + name, std::move(gone));
    EXPECT_TRUE(opened);
    return *std::move(opened);
  }

  void close(std::unique_ptr<OpenVolume> opened) {
    world.control().inside([&] { volumes->close(std::move(opened)); });
    world.run();
  }
  void let_go() {
    world.control().inside([&] { pool.go.set(); });
    world.run();
  }

  TestWorld world{2};
  NoStore store;
  FakePool pool{world.control()};
  Events events;
  std::unique_ptr<Volumes> volumes;
};

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
