// What the tests of the registry of mirrors stand on: store, marks, pool and volumes of one
// simulated machine, opened and crashed as often as a test likes, and hosts that read and write.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "meta/store.h"
#include "mirror/mirrors.h"
#include "pool/pool.h"
#include "sim/machine.h"
#include "sim/simulation.h"
#include "volume/members.h"
#include "volume/volume_impl.h"

namespace duplex::mirror::testing {

class TestDesk final : public JobDesk {
 public:
  struct Job {
    NewJob what;
    Work* work = nullptr;  // while it runs
    std::optional<End> end;
    WorkProgress last;
  };
  Opened open(NewJob job, Work& work) override {
    for (auto& [id, old] : jobs) {
      if (old.end == End::kStopped && old.what.kind == job.kind && old.what.mirror == job.mirror) {
        old.work = &work;
        old.end.reset();
        return {.id = id};
      }
    }
    const auto id = static_cast<uint32_t>(jobs.size() + 1);
    jobs[id] = {.what = std::move(job), .work = &work, .end = {}, .last = {}};
    return {.id = id};
  }
  void close(uint32_t id, End end, std::string, WorkProgress last) override {
    jobs[id].work = nullptr;
    jobs[id].end = end;
    jobs[id].last = last;
  }
  void forget(const std::string& mirror) override {
    for (auto& [id, job] : jobs) {
      if (job.what.mirror == mirror && job.end == End::kStopped) job.end = End::kCancelled;
    }
  }
  const Job* last(std::string_view kind) const {
    const Job* found = nullptr;
    for (const auto& [id, job] : jobs) {
      if (job.what.kind == kind) found = &job;
    }
    return found;
  }
  std::map<uint32_t, Job> jobs;
};

class Sink final : public EventSink {
 public:
  void emit(Event event) override { events.push_back(std::move(event)); }
  size_t count(std::string_view code) const {
    size_t found = 0;
    for (const Event& event : events) found += event.code == code ? 1 : 0;
    return found;
  }
  std::vector<Event> events;
};

class TestMirrors {
 public:
  static constexpr uint64_t kExtent = 64 * kKiB;
  static constexpr uint64_t kVolume = 16 * kMiB;

  explicit TestMirrors(uint64_t seed = 1)
      : sim(seed), box(sim.add_machine("box", {.reactors = 2})) {
    set_log_sink([](LogLevel, std::string_view) {});
    open();
  }
  ~TestMirrors() {
    crash();
    set_log_sink({});
  }

  void open() {
    if (!box.running()) box.power_on({.reactors = 2});
    const auto opened = sim.run(box.control(), start(*this));
    ASSERT_TRUE(opened && *opened) << (opened ? opened->error().describe() : "it never ends");
  }
  void stop() { ASSERT_TRUE(sim.run(box.control(), end(*this))); }
  void crash(bool power = true) {
    if (power) box.power_cut();
    if (!power) box.kill();
    sim.sweep();
    mirrors.reset();
    volumes.reset();
    pool.reset();
    marks.reset();
    store.reset();
  }

  template <class T>
  T run(rt::Task<T> task) {
    auto result = sim.run(box.control(), std::move(task));
    EXPECT_TRUE(result) << "it never ends";
    return *std::move(result);
  }
  // Goes on beside what is run next, until end_of() asks for its outcome.
  template <class T>
  using Begun = std::shared_ptr<sim::detail::Outcome<T>>;
  template <class T>
  Begun<T> begin(rt::Task<T> task) {
    return sim.start(box.control(), std::move(task));
  }
  template <class T>
  T end_of(const Begun<T>& begun) {
    EXPECT_TRUE(sim.finish(*begun)) << "it never ends";
    return *std::move(begun->value);
  }
  void pass(rt::Micros time) { sim.run(box.control(), sleep(box.control().clock(), time)); }

  void add_device(const std::string& path, uint64_t bytes = 128 * kMiB) {
    const auto added = run(pool->add_device(
        {.path = path, .name = "", .create_bytes = bytes, .extent_bytes = kExtent}));
    ASSERT_TRUE(added) << added.error().describe();
  }
  void add_volume(const std::string& name, const std::string& device = "",
                  uint64_t bytes = kVolume) {
    const auto made = run(volumes->create(
        {.name = name, .size_bytes = bytes, .number = {}, .backing = {}, .device = device}));
    ASSERT_TRUE(made) << made.error().describe();
  }
  Result<Mirrors::Created> create(const std::string& name, const std::string& source,
                                  const std::string& target) {
    return run(mirrors->create({.name = name, .source = source, .target = target}));
  }
  MirrorInfo show(const std::string& name) {
    auto info = run(mirrors->show(name));
    EXPECT_TRUE(info) << (info ? "" : info.error().describe());
    return info ? *info : MirrorInfo{};
  }
  // Lets time pass until the mirror is there; false after a minute.
  bool reaches(const std::string& name, Relation state) {
    for (int i = 0; i < 600; ++i) {
      if (show(name).state == state) return true;
      pass(rt::kSecond / 10);
    }
    return false;
  }

  // A volume in a mirror, from within: valid as long as it is in one.
  volume::Member& member(const std::string& name) {
    volume::Member& found = *run(volumes->join(volumes->info(name)->number, "test")).value();
    sim.run(box.control(), volumes->leave(found, "test"));
    return found;
  }

  Result<void> write(const std::string& name, uint64_t offset, uint64_t bytes, int what) {
    return run(write_on(*volumes, name, offset, bytes, std::byte(what), box.control()));
  }
  Begun<Result<void>> begin_write(const std::string& name, uint64_t offset, uint64_t bytes,
                                  int what) {
    return begin(write_on(*volumes, name, offset, bytes, std::byte(what), box.control()));
  }
  Begun<Result<void>> begin_zero(const std::string& name, ByteRange range) {
    return begin(zero_on(*volumes, name, range, box.control()));
  }
  Result<void> flush(const std::string& name) {
    return run(flush_on(*volumes, name, box.control()));
  }
  // The one byte all of the range holds; -1: they differ; -2: it cannot be read.
  int read(const std::string& name, uint64_t offset, uint64_t bytes) {
    return run(read_on(*volumes, name, offset, bytes, box.control()));
  }

  sim::Simulation sim;
  sim::Machine& box;
  Sink events;
  TestDesk desk;
  std::unique_ptr<meta::Store> store;
  std::unique_ptr<meta::Marks> marks;
  std::unique_ptr<pool::Pool> pool;
  std::unique_ptr<volume::Volumes> volumes;
  std::unique_ptr<Mirrors> mirrors;

 private:
  static rt::Task<> sleep(rt::Clock& clock, rt::Micros time) {
    co_await rt::sleep_for(clock, time);
  }
  static rt::Task<Result<void>> start(TestMirrors& t) {
    rt::World& world = t.box;
    CO_TRY_ASSIGN(t.store,
                  co_await meta::Store::open(
                      world.sync_files(), world.store(), world.control().rng(),
                      {.directory = "/state", .array_id = ArrayId(0x400104), .array_name = "a1"}));
    CO_TRY_ASSIGN(const meta::Snapshot snapshot, co_await t.store->load());
    CO_TRY_ASSIGN(auto opened, co_await meta::Marks::open(world.sync_files(), world.store(),
                                                          world.control().rng(), *t.store, snapshot,
                                                          {.directory = "/state"}));
    t.marks = std::move(opened.marks);
    CO_TRY_ASSIGN(t.pool, co_await pool::Pool::open(world, *t.store, t.events, snapshot));
    CO_TRY_ASSIGN(t.volumes,
                  co_await volume::Volumes::open(world, *t.pool, t.events, *t.marks, snapshot));
    CO_TRY_ASSIGN(t.mirrors, co_await Mirrors::open({.world = world,
                                                     .array = ArrayId(0x400104),
                                                     .array_name = "a1",
                                                     .store = *t.store,
                                                     .marks = *t.marks,
                                                     .volumes = *t.volumes,
                                                     .events = t.events,
                                                     .jobs = t.desk},
                                                    snapshot, std::move(opened.found)));
    co_return Result<void>();
  }
  static rt::Task<Result<void>> end(TestMirrors& t) {
    co_await t.mirrors->stop();
    co_await t.volumes->stop();
    t.mirrors.reset();
    t.volumes.reset();
    co_await t.pool->close();
    t.pool.reset();
    t.marks.reset();
    co_await t.store->close();
    t.store.reset();
    co_return Result<void>();
  }
  static rt::Task<Result<void>> write_on(volume::Volumes& volumes, std::string name,
                                         uint64_t offset, uint64_t bytes, std::byte what,
                                         rt::Core& control) {
    CO_TRY_ASSIGN(auto open, volumes.open(name, "test", [] {}));
    co_await rt::hop(open->volume().core());
    const std::vector<std::byte> data(bytes, what);
    Result<void> result = co_await open->volume().write(offset, data, false);
    co_await rt::hop(control);
    volumes.close(std::move(open));
    co_return result;
  }
  static rt::Task<Result<void>> zero_on(volume::Volumes& volumes, std::string name, ByteRange range,
                                        rt::Core& control) {
    CO_TRY_ASSIGN(auto open, volumes.open(name, "test", [] {}));
    co_await rt::hop(open->volume().core());
    Result<void> result = co_await open->volume().zero(range, {});
    co_await rt::hop(control);
    volumes.close(std::move(open));
    co_return result;
  }
  static rt::Task<Result<void>> flush_on(volume::Volumes& volumes, std::string name,
                                         rt::Core& control) {
    CO_TRY_ASSIGN(auto open, volumes.open(name, "test", [] {}));
    co_await rt::hop(open->volume().core());
    Result<void> result = co_await open->volume().flush();
    co_await rt::hop(control);
    volumes.close(std::move(open));
    co_return result;
  }
  static rt::Task<int> read_on(volume::Volumes& volumes, std::string name, uint64_t offset,
                               uint64_t bytes, rt::Core& control) {
    auto open = volumes.open(name, "test", [] {});
    if (!open) co_return -2;
    co_await rt::hop((*open)->volume().core());
    std::vector<std::byte> data(bytes);
    const Result<void> result = co_await (*open)->volume().read(offset, data);
    co_await rt::hop(control);
    volumes.close(std::move(*open));
    if (!result) co_return -2;
    if (data != std::vector<std::byte>(bytes, data[0])) co_return -1;
    co_return static_cast<int>(data[0]);
  }
};

// Two devices, a volume on each, and a mirror `m` of p to s when a test asks for it.
class PairTest : public ::testing::Test {
 protected:
  void SetUp() override {
    t.add_device("/d1");
    t.add_device("/d2");
    t.add_volume("p", "d1");
    t.add_volume("s", "d2");
  }
  void make_sync() {
    const auto made = t.create("m", "p", "s");
    ASSERT_TRUE(made) << made.error().describe();
    ASSERT_TRUE(t.reaches("m", Relation::kSync));
  }
  Result<CutInfo> split(std::vector<std::string> names = {"m"}, bool read_only = false) {
    return t.run(
        t.mirrors->split({.names = std::move(names), .pairs = {}, .read_only = read_only}));
  }
  Result<std::vector<MirrorInfo>> resync(const std::string& name = "m") {
    return t.run(t.mirrors->resync({.names = {name}}));
  }
  sim::DiskFile& disk(const char* path) { return *t.box.disk().find(path); }
  sim::DiskFaults& faults(const char* path) { return disk(path).faults; }

  TestMirrors t;
};

}  // namespace duplex::mirror::testing
