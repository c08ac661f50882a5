// What the tests of the registry stand on: a pool in memory, the marks of a real store in memory,
// and a registry that is opened again as a restart would.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "meta/test_world.h"
#include "volume/volume_test_kit.h"
#include "volume/volumes.h"

namespace duplex::volume::testing {

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

class Registry : public ::testing::Test {
 protected:
  Registry() {
    set_log_sink([](LogLevel, std::string_view) {});
    reopen();
  }
  ~Registry() override { set_log_sink({}); }
  // As a restart would: from the rows of the store.
  void reopen() {
    volumes.reset();
    marks.reset();
    if (store) ASSERT_TRUE(finish(store->close()));
    auto stored = finish(meta::Store::open(files, world.control(), world.control().rng(),
                                           {"/state", ArrayId(1), "a"}));
    ASSERT_TRUE(stored);
    store = *std::move(stored);
    auto snapshot = finish(store->load());
    ASSERT_TRUE(snapshot);
    auto marked = finish(meta::Marks::open(files, world.control(), world.control().rng(), *store,
                                           *snapshot, {.directory = "/state"}));
    ASSERT_TRUE(marked);
    marks = std::move(marked->marks);
    found = std::move(marked->found);
    for (const auto& [id, row] : pool.rows) snapshot->volumes.push_back(row);
    auto opened = finish(Volumes::open(world, pool, events, *marks, *snapshot));
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
  FakePool pool{world.control()};
  Events events;
  meta::test::MemoryFiles files;
  std::unique_ptr<meta::Store> store;
  std::unique_ptr<meta::Marks> marks;
  meta::Marks::Found found;
  std::unique_ptr<Volumes> volumes;
};

}  // namespace duplex::volume::testing
