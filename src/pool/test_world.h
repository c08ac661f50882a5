// For tests of this room, and of volumes on it: disks in memory with a volatile cache, cores that
// take turns in an order drawn from a seed, a store that keeps its tables in memory and refuses
// what contradicts them. power_cut() leaves what a machine would find afterwards.
#pragma once

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/assert.h"
#include "base/units.h"
#include "meta/store.h"
#include "pool/pool.h"
#include "rt/task_group.h"
#include "rt/world.h"

namespace duplex::pool::test {

class TestWorld;

class TestDisk {
 public:
  explicit TestDisk(uint64_t bytes, bool block_device = false)
      : is_block_device(block_device), now(bytes), durable(bytes) {}

  void resize(uint64_t bytes) {
    now.resize(bytes);
    durable.resize(bytes);
  }
  // What was not flushed is kept or lost sector by sector, as `random` says (null: all is lost).
  void lose_cache(std::mt19937_64* random) {
    ++losses;
    for (const uint64_t sector : dirty) {
      if (random != nullptr && (*random)() % 2 == 0) {
        std::memcpy(durable.data() + sector * 512, now.data() + sector * 512, 512);
      }
    }
    dirty.clear();
    now = durable;
  }
  void fill(std::string_view pattern) {
    for (size_t i = 0; i < now.size(); ++i) now[i] = std::byte(pattern[i % pattern.size()]);
    durable = now;
  }
  int perform(rt::FileOp& op);

  bool is_block_device;
  std::vector<std::byte> now;
  std::vector<std::byte> durable;
  std::set<uint64_t> dirty;  // sectors
  bool locked = false;
  // Faults.
  bool gone = false;  // everything answers ENODEV, open fails
  int write_error = 0;
  int read_error = 0;
  uint64_t failing_flushes = 0;  // so many flushes fail, losing what they should have kept
  uint64_t flushes = 0;
  uint64_t losses = 0;  // of the cache
};

inline int TestDisk::perform(rt::FileOp& op) {
  using Kind = rt::FileOp::Kind;
  const uint64_t length =
      op.kind == Kind::kRead || op.kind == Kind::kWrite ? op.data.size() : op.length;
  if (gone) return ENODEV;
  if (op.kind == Kind::kFlush) {
    ++flushes;
    if (failing_flushes > 0) {
      --failing_flushes;
      lose_cache(nullptr);
      return EIO;
    }
    for (const uint64_t s : dirty) std::memcpy(durable.data() + s * 512, now.data() + s * 512, 512);
    dirty.clear();
    return 0;
  }
  if (op.offset + length > now.size() || op.offset % kBlockBytes != 0) return EIO;
  if (op.kind == Kind::kRead) {
    if (read_error != 0) return read_error;
    std::memcpy(op.data.data(), now.data() + op.offset, length);
    return 0;
  }
  if (write_error != 0) return write_error;
  if (op.kind == Kind::kWrite) {
    std::memcpy(now.data() + op.offset, op.data.data(), length);
  } else {
    std::memset(now.data() + op.offset, 0, length);
  }
  for (uint64_t s = op.offset / 512; s < (op.offset + length) / 512; ++s) dirty.insert(s);
  return 0;
}

class TestCore final : public rt::Core, public rt::Clock, public rt::Rng, public rt::Files {
 public:
  TestCore(TestWorld& w, size_t at) : world(w), index_(at) {}
  void post(rt::Work& work) override {
    if (!dead) ready.push_back(&work);
  }
  void defer(rt::Work& work) override { post(work); }
  bool abandoned() const override { return dead; }
  rt::Clock& clock() override { return *this; }
  rt::Rng& rng() override { return *this; }
  rt::Files& files() override { return *this; }
  rt::Net& net() override { std::abort(); }
  rt::BufferPool& buffers() override { return buffers_; }
  size_t index() const override { return index_; }
  rt::Micros now() const override;
  int64_t wall_us() const override;
  void arm(rt::Timer& timer, rt::Micros deadline) override;
  void cancel(rt::Timer& timer) override;
  uint64_t next() override;
  rt::Task<Result<std::unique_ptr<rt::File>>> open(std::string path,
                                                   rt::OpenOptions options) override;
  rt::Task<Result<void>> remove(std::string path) override;

  template <class F>
  void run(F&& f) {
    Scope scope(*this);
    f();
  }
  TestWorld& world;
  std::deque<rt::Work*> ready;
  bool dead = false;

 private:
  size_t index_;
  rt::BufferPool buffers_{0};
};

class TestWorld final : public rt::World {
 public:
  explicit TestWorld(uint64_t seed, size_t reactors = 2) : random(seed) {
    for (size_t i = 0; i < reactors + 2; ++i)
      cores_.push_back(std::make_unique<TestCore>(*this, i));
  }
  rt::Core& control() override { return *cores_[0]; }
  size_t reactor_count() const override { return cores_.size() - 2; }
  rt::Core& reactor(size_t i) override { return *cores_[i + 1]; }
  rt::Executor& store() override { return *cores_.back(); }
  rt::SyncFiles& sync_files() override { std::abort(); }

  TestDisk& add_disk(const std::string& path, uint64_t bytes, bool block_device = false) {
    return *(disks[path] = std::make_shared<TestDisk>(bytes, block_device));
  }
  // One thing happens. False: nothing can, not even by waiting.
  bool step() {
    std::vector<TestCore*> able;
    for (auto& core : cores_) {
      if (!core->ready.empty()) able.push_back(core.get());
    }
    std::vector<size_t> ios;
    for (size_t i = 0; i < in_flight.size(); ++i) {
      if (!hold || !hold(*in_flight[i].op)) ios.push_back(i);
    }
    const size_t choices = able.size() + ios.size();
    if (choices == 0) return fire_timer();
    const size_t pick = random() % choices;
    if (pick < able.size()) {
      rt::Work* work = able[pick]->ready.front();
      able[pick]->ready.pop_front();
      able[pick]->run([&] { work->run(*work); });
    } else {
      const size_t at = ios[pick - able.size()];
      const Io io = in_flight[at];
      in_flight.erase(in_flight.begin() + static_cast<ptrdiff_t>(at));
      io.op->error = io.disk->perform(*io.op);
      io.core->run([&] { io.op->done(*io.op); });
    }
    return true;
  }
  bool fire_timer() {
    if (timers.empty()) return false;
    const auto [key, core] = *timers.begin();
    timers.erase(timers.begin());
    time = std::max(time, key.first);
    key.second->timer_slot = 0;
    core->run([&] { key.second->fire(*key.second); });
    return true;
  }
  // The machine stops here; its objects are to be destroyed, then revive() starts a new one.
  void kill() {
    for (auto& core : cores_) {
      core->dead = true;
      core->ready.clear();
    }
    in_flight.clear();
    timers.clear();
  }
  void revive(bool lose_caches) {
    for (auto& core : cores_) core->dead = false;
    for (auto& [path, disk] : disks) {
      disk->locked = false;
      if (lose_caches) disk->lose_cache(&random);
    }
  }
  // Starts `task` on the control core; `out` has its result when it has ended.
  template <class T>
  void start(rt::TaskGroup& group, rt::Task<T> task, std::optional<T>& out) {
    cores_[0]->run([&] { group.spawn(store_result(std::move(task), out)); });
  }
  // Runs `task` on the control core until it ends.
  template <class T>
  T run(rt::Task<T> task) {
    std::optional<T> out;
    rt::TaskGroup group(control());
    start(group, std::move(task), out);
    uint64_t steps = 0;
    while (group.size() > 0) {
      const bool alive = step();
      ASSERT(alive && ++steps < 50'000'000);
    }
    return std::move(*out);
  }
  void settle(rt::Micros for_time) {
    const rt::Micros until = time + for_time;
    while (time < until && step()) {
    }
  }

  struct Io {
    rt::FileOp* op;
    TestDisk* disk;
    TestCore* core;
  };
  std::mt19937_64 random;
  std::function<bool(const rt::FileOp&)> hold;  // operations that do not end for now
  rt::Micros time = 1;
  int64_t wall_us = 1;  // stands still
  std::map<std::string, std::shared_ptr<TestDisk>> disks;
  std::vector<Io> in_flight;
  std::map<std::pair<rt::Micros, rt::Timer*>, TestCore*> timers;

 private:
  template <class T>
  static rt::Task<> store_result(rt::Task<T> task, std::optional<T>& out) {
    out.emplace(co_await std::move(task));
  }
  std::vector<std::unique_ptr<TestCore>> cores_;  // control, reactors, store
};

class TestFile final : public rt::File {
 public:
  TestFile(TestCore& core, std::shared_ptr<TestDisk> disk, const std::string& path)
      : core_(core), disk_(std::move(disk)) {
    info_ = {.is_block_device = disk_->is_block_device,
             .is_direct = true,
             .alignment = 4096,
             .size = disk_->now.size(),
             .path = path,
             .engine = "test"};
  }
  ~TestFile() override {
    if (has_lock_) disk_->locked = false;
  }
  bool start(rt::FileOp& op) override {
    EXPECT_TRUE(core_.is_current());
    core_.world.in_flight.push_back({&op, disk_.get(), &core_});
    return false;
  }
  const rt::FileInfo& info() const override { return info_; }
  rt::Task<Result<uint64_t>> refresh() override {
    info_.size = disk_->now.size();
    co_return info_.size;
  }
  rt::Task<Result<void>> resize(uint64_t) override { co_return fail(Code::kNotSupported); }
  Result<void> lock() override {
    if (disk_->locked) return fail(Code::kBusy, "in use by another array");
    disk_->locked = has_lock_ = true;
    return {};
  }

 private:
  TestCore& core_;
  std::shared_ptr<TestDisk> disk_;
  rt::FileInfo info_;
  bool has_lock_ = false;
};

inline rt::Micros TestCore::now() const { return world.time; }
inline int64_t TestCore::wall_us() const { return world.wall_us; }
inline void TestCore::arm(rt::Timer& timer, rt::Micros deadline) {
  timer.deadline = deadline;
  timer.timer_slot = 1;
  world.timers[{deadline, &timer}] = this;
}
inline void TestCore::cancel(rt::Timer& timer) { world.timers.erase({timer.deadline, &timer}); }
inline uint64_t TestCore::next() { return world.random(); }
inline rt::Task<Result<std::unique_ptr<rt::File>>> TestCore::open(std::string path,
                                                                  rt::OpenOptions options) {
  co_await rt::yield();
  const bool exists = world.disks.contains(path);
  if (!exists && options.create) world.add_disk(path, options.create_bytes);
  if (!world.disks.contains(path)) co_return std::unexpected(system_error(ENOENT, path));
  if (world.disks[path]->gone) co_return std::unexpected(system_error(ENXIO, path));
  if (exists && options.exclusive) co_return std::unexpected(system_error(EEXIST, path));
  co_return std::make_unique<TestFile>(*this, world.disks[path], path);
}
inline rt::Task<Result<void>> TestCore::remove(std::string path) {
  world.disks.erase(path);
  co_return Result<void>();
}

// The tables, strictly: a change that contradicts them fails the test.
class TestStore final : public meta::Store {
 public:
  struct Tables {
    meta::ArrayRow array;
    std::map<DeviceId, meta::DeviceRow> devices;
    std::map<BackingId, meta::BackingRow> backings;
    std::map<VolumeNumber, meta::VolumeRow> volumes;
    std::map<std::pair<BackingId, LogicalExtent>, meta::ExtentRow> extents;
    std::set<std::pair<DeviceId, PhysicalExtent>> owned;
    std::set<std::pair<DeviceId, PhysicalExtent>> scrub;
  };
  TestStore(TestWorld& world, Tables& tables) : world_(world), tables_(tables) {}

  rt::Task<Result<meta::Snapshot>> load() override {
    meta::Snapshot s;
    s.array = tables_.array;
    for (auto& [key, row] : tables_.devices) s.devices.push_back(row);
    for (auto& [key, row] : tables_.backings) s.backings.push_back(row);
    for (auto& [key, row] : tables_.volumes) s.volumes.push_back(row);
    for (auto& [key, row] : tables_.extents) s.extents.push_back(row);
    for (auto& [device, pe] : tables_.scrub) s.scrub.push_back({device, pe});
    co_return s;
  }
  rt::Task<Result<void>> commit(meta::Transaction transaction) override {
    rt::Executor& home = rt::Executor::current();
    co_await rt::hop(world_.store());
    ++commits;
    const bool ok = !fail_commits;
    if (ok || doubt_commits) {
      for (const meta::Change& change : transaction) {
        std::visit([&](const auto& c) { apply(c); }, change);
      }
    }
    co_await rt::hop(home);
    if (!ok && doubt_commits) co_return fail(Code::kInDoubt);
    if (!ok) co_return fail(Code::kNoSpace, "the state directory is full");
    co_return Result<void>();
  }
  rt::Task<Result<std::vector<meta::EventRow>>> events(uint64_t, size_t) override {
    co_return std::vector<meta::EventRow>();
  }
  rt::Task<Result<void>> close() override { co_return Result<void>(); }

  bool fail_commits = false;
  bool doubt_commits = false;  // those that fail are there at the next start all the same
  uint64_t commits = 0;

 private:
  void apply(const meta::PutArray& c) { tables_.array = c.row; }
  void apply(const meta::PutDevice& c) { tables_.devices[c.row.id] = c.row; }
  void apply(const meta::DropDevice& c) {
    for (auto& [device, pe] : tables_.scrub) EXPECT_NE(device, c.id);
    for (auto& [device, pe] : tables_.owned) EXPECT_NE(device, c.id);
    EXPECT_EQ(tables_.devices.erase(c.id), 1u);
  }
  void apply(const meta::SetCleanExtents& c) {
    tables_.devices.at(c.id).clean_extents = c.clean_extents;
  }
  void apply(const meta::SetLogSequence& c) {
    EXPECT_GT(c.log_sequence, tables_.devices.at(c.id).log_sequence);
    tables_.devices.at(c.id).log_sequence = c.log_sequence;
  }
  void apply(const meta::SetLife& c) {
    EXPECT_GT(c.life, tables_.devices.at(c.id).life);
    tables_.devices.at(c.id).life = c.life;
  }
  void apply(const meta::PutBacking& c) {
    tables_.backings[c.row.id] = c.row;
    tables_.array.last_backing = std::max(tables_.array.last_backing, c.row.id.value());
  }
  void apply(const meta::DropBacking& c) {
    for (auto& [key, row] : tables_.extents) EXPECT_NE(row.backing, c.id);
    EXPECT_EQ(tables_.backings.erase(c.id), 1u);
  }
  void apply(const meta::PutVolume& c) { tables_.volumes[c.row.number] = c.row; }
  void apply(const meta::DropVolume& c) { EXPECT_EQ(tables_.volumes.erase(c.number), 1u); }
  void apply(const meta::MapExtent& c) {
    EXPECT_TRUE(tables_.backings.contains(c.row.backing));
    EXPECT_FALSE(tables_.scrub.contains({c.row.device, c.row.pe}));
    EXPECT_TRUE(tables_.owned.insert({c.row.device, c.row.pe}).second) << "two owners";
    EXPECT_TRUE(tables_.extents.emplace(std::pair(c.row.backing, c.row.le), c.row).second);
  }
  void apply(const meta::UnmapExtent& c) {
    EXPECT_EQ(tables_.extents.erase({c.row.backing, c.row.le}), 1u);
    EXPECT_EQ(tables_.owned.erase({c.row.device, c.row.pe}), 1u);
    EXPECT_TRUE(tables_.scrub.insert({c.row.device, c.row.pe}).second);
  }
  void apply(const meta::Scrubbed& c) {
    EXPECT_EQ(tables_.scrub.erase({c.row.device, c.row.pe}), 1u);
  }
  template <class Other>
  void apply(const Other&) {
    ADD_FAILURE() << "not a change of the pool";
  }

  TestWorld& world_;
  Tables& tables_;
};

class TestEvents final : public EventSink {
 public:
  void emit(Event event) override { codes.push_back(event.code); }
  size_t count(std::string_view code) const {
    size_t found = 0;
    for (const std::string& c : codes) found += c == code ? 1 : 0;
    return found;
  }
  std::vector<std::string> codes;
};

// An array reduced to its pool: world, store, events, pool, and what survives a power cut.
class Rig {
 public:
  static constexpr uint64_t kExtent = 64 * kKiB;

  explicit Rig(uint64_t seed) : world(seed) {
    tables.array.id = ArrayId(0x400104);
    tables.array.name = "a";
    tables.array.uuid = Uuid::from_random(1, 2);
    tables.array.incarnation = Uuid::from_random(3, 4);
  }
  ~Rig() { stop(); }
  Result<void> start() {
    store = std::make_unique<TestStore>(world, tables);
    auto snapshot = world.run(store->load());
    auto opened = world.run(Pool::open(world, *store, events, *snapshot));
    if (!opened) {
      store.reset();
      return std::unexpected(opened.error());
    }
    pool = std::move(*opened);
    return {};
  }
  void stop() {
    if (pool) world.run(closed(*pool));
    pool.reset();
    store.reset();
    backings.clear();
  }
  void power_cut(bool lose_caches = true) {
    world.kill();
    pool.reset();
    store.reset();
    backings.clear();
    world.revive(lose_caches);
  }
  Result<Pool::AddedDevice> add(const std::string& path, bool overwrite = false,
                                uint64_t create = 0) {
    return world.run(pool->add_device({.path = path,
                                       .name = "",
                                       .create_bytes = create,
                                       .extent_bytes = kExtent,
                                       .overwrite = overwrite}));
  }
  Result<Backing*> create(uint16_t number, uint64_t bytes, bool thick = false,
                          const std::string& device = "") {
    meta::VolumeRow row{.number = VolumeNumber(number),
                        .name = "v" + std::to_string(number),
                        .size_bytes = bytes,
                        .backing = {},
                        .content_id = {},
                        .damaged = false,
                        .created_us = 0};
    auto made = world.run(
        pool->create_backing({.name = "", .size_bytes = bytes, .thick = thick, .device = device},
                             world.reactor(number % world.reactor_count()), row));
    if (made) backings[number] = *made;
    return made;
  }
  void attach_all() {
    for (const auto& [number, row] : tables.volumes) {
      auto attached = world.run(
          pool->attach_backing(row.backing, world.reactor(number.value() % world.reactor_count())));
      ASSERT(attached.has_value());
      backings[number.value()] = *attached;
    }
  }
  rt::Core& core(uint16_t number) { return world.reactor(number % world.reactor_count()); }

  // Calls on the backing's core.
  Result<void> write(uint16_t number, uint64_t offset, std::byte fill,
                     uint64_t bytes = kBlockBytes) {
    return world.run(
        write_on(core(number), world.control(), *backings.at(number), offset, fill, bytes));
  }
  // The byte all of the block has; fails the test when it has several.
  Result<std::byte> read(uint16_t number, uint64_t offset) {
    const auto bytes =
        world.run(bytes_on(core(number), world.control(), *backings.at(number), offset));
    if (!bytes) return std::unexpected(bytes.error());
    EXPECT_EQ(bytes->size(), 1u);
    return *bytes->begin();
  }
  Result<void> flush(uint16_t number) {
    return world.run(flush_on(core(number), world.control(), *backings.at(number)));
  }
  Result<void> zero(uint16_t number, ByteRange range, ZeroMode mode = ZeroMode::kMayUnmap) {
    return world.run(zero_on(core(number), world.control(), *backings.at(number), range, mode));
  }

  static rt::Task<Result<void>> write_on(rt::Core& core, rt::Executor& home, Backing& backing,
                                         uint64_t offset, std::byte fill, uint64_t bytes) {
    co_await rt::hop(core);
    std::vector<std::byte> data(bytes, fill);
    Result<void> result;
    if (!backing.is_mapped({offset, bytes})) result = co_await backing.allocate({offset, bytes});
    if (result) result = co_await backing.write(offset, data);
    co_await rt::hop(home);
    co_return result;
  }
  // The different bytes that the block holds.
  static rt::Task<Result<std::set<std::byte>>> bytes_on(rt::Core& core, rt::Executor& home,
                                                        Backing& backing, uint64_t offset) {
    co_await rt::hop(core);
    std::vector<std::byte> data(kBlockBytes, std::byte(0xee));
    const auto result = co_await backing.read(offset, data);
    co_await rt::hop(home);
    if (!result) co_return std::unexpected(result.error());
    co_return std::set<std::byte>(data.begin(), data.end());
  }
  static rt::Task<Result<void>> flush_on(rt::Core& core, rt::Executor& home, Backing& backing) {
    co_await rt::hop(core);
    auto result = co_await backing.flush();
    co_await rt::hop(home);
    co_return result;
  }
  static rt::Task<Result<void>> zero_on(rt::Core& core, rt::Executor& home, Backing& backing,
                                        ByteRange range, ZeroMode mode) {
    co_await rt::hop(core);
    auto result = co_await backing.zero(range, mode);
    co_await rt::hop(home);
    co_return result;
  }
  static rt::Task<bool> closed(Pool& pool) {
    co_await pool.close();
    co_return true;
  }

  TestWorld world;
  TestStore::Tables tables;
  TestEvents events;
  std::unique_ptr<TestStore> store;
  std::unique_ptr<Pool> pool;
  std::map<uint16_t, Backing*> backings;
};

}  // namespace duplex::pool::test
